//! Columns for people, aligned with spaces.

/// Rows under a heading; the last column is not padded.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    push_row(&mut text, &heading.map(str::to_owned), &widths);
    for row in rows {
        push_row(&mut text, row, &widths);
    }
    text
}

/// Named values, one a line, under one another.
pub fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    fields
        .iter()
        .map(|(name, value)| {
            let name = format!("{name}:");
            format!("  {name:width$}  {value}\n")
        })
        .collect()
}

fn push_row(text: &mut String, row: &[String], widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        line += &format!("{cell:width$}   ");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Items with commas between, or a dash.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["web".to_owned(), "10.0.0.2/24".to_owned()],
            ["database".to_owned(), "-".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "ADDRESS"], &rows),
            "NAME       ADDRESS\nweb        10.0.0.2/24\ndatabase   -\n"
        );
    }

    #[test]
    fn no_items_are_a_dash() {
        assert_eq!(list(Vec::<String>::new()), "-");
        assert_eq!(list(["a", "b"]), "a, b");
    }
}
