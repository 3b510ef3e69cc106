//! A plan that is only shown: commands for `sh` with their reasons as comments, or steps as JSON.

use wharf_core::plan::Plan;
use wharf_core::render;

use super::Printer;
use super::error::CommandError;

impl Printer {
    /// Prints a plan that is not carried out; an empty one says that it is so already.
    ///
    /// # Errors
    /// As [`Printer::text`].
    pub fn plan(&self, plan: &Plan) -> Result<(), CommandError> {
        if self.json() {
            self.value(&render::plan_json(plan))
        } else {
            self.text(&script(plan))
        }
    }
}

/// One command per step, each with its reason above; the same reason is not repeated.
fn script(plan: &Plan) -> String {
    if plan.is_empty() {
        return "# nothing to do: it is so already\n".to_owned();
    }
    let mut text = String::new();
    let mut said = "";
    for step in &plan.steps {
        if step.because != said {
            text += &format!("# {}\n", step.because.replace('\n', "\n# "));
            said = &step.because;
        }
        text += render::command(&step.op).trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::op::Op;
    use wharf_core::plan::Undo;

    #[test]
    fn reasons_are_comments_and_not_repeated() {
        let mut plan = Plan::default();
        for name in ["a", "b"] {
            let path = format!("/run/netns/{name}").into();
            plan.push(Op::NetnsAdd(path), Undo::Ops(Vec::new()), "a\nreason");
        }
        let script = script(&plan);
        assert!(script.starts_with("# a\n# reason\n"), "{script}");
        assert_eq!(script.matches("# a\n").count(), 1);
        assert_eq!(
            script
                .lines()
                .filter(|l| l.starts_with("ip netns add"))
                .count(),
            2
        );
    }
}
