//! Completion as the shells themselves do it.

use crate::common::*;
use wharf_testkit::{Host, require};

/// A host with a wharf in the path, and containers and networks.
fn peopled() -> Host {
    let host = host();
    host.sh(&format!("mkdir /run/bin; ln -s {WHARF} /run/bin/wharf"));
    for shell in ["bash", "zsh", "fish"] {
        let script = host.w(&format!("completions {shell}")).ok().stdout;
        host.dir().write(shell, &script);
    }
    host.w("network create blue").ok();
    host.w("network create green").ok();
    host.w("create web --network blue").ok();
    host.w("create db --network blue").ok();
    host
}

/// What is typed, and what may come next.
const CASES: &[(&str, &str)] = &[
    ("rm ", "db web"),
    ("rm -f we", "web"),
    ("rm web ", "db"),
    ("exec ", "db web"),
    ("inspect w", "web"),
    ("port add d", "db"),
    ("network rm ", "blue green"),
    ("network rm b", "blue"),
    ("network connect gr", "green"),
    ("network connect green w", "web"),
    ("create new --network ", "blue green"),
    ("trace web ", "db host outside"),
    ("network disc", "disconnect"),
];

fn sorted(found: &str) -> String {
    let mut words: Vec<&str> = found.split_whitespace().collect();
    words.sort_unstable();
    words.join(" ")
}

#[test]
fn bash_completes_names() {
    require!();
    let host = peopled();
    let file = format!("{}/bash", host.dir().path().display());
    for (typed, wanted) in CASES {
        let script = format!(
            "PATH=/run/bin:$PATH; . {file}; line='wharf {typed}x'; read -ra COMP_WORDS <<<\"$line\"; \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_WORDS[COMP_CWORD]=${{COMP_WORDS[COMP_CWORD]%x}}; \
             _wharf wharf \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             echo \"${{COMPREPLY[*]}}\""
        );
        let out = host.command("bash").args(["-c", &script]).run().ok();
        assert_eq!(sorted(&out.stdout), *wanted, "{typed}");
    }
}

#[test]
fn fish_completes_names() {
    require!();
    let host = peopled();
    let file = format!("{}/fish", host.dir().path().display());
    for (typed, wanted) in CASES {
        let script = format!(
            "set -x HOME /run; set PATH /run/bin $PATH; source {file}; complete -C 'wharf {typed}'"
        );
        let out = host
            .command("fish")
            .args(["--no-config", "-c", &script])
            .run()
            .ok();
        // Behind a tab stands what it is.
        let found: Vec<&str> = out
            .stdout
            .lines()
            .filter_map(|l| l.split('\t').next())
            .collect();
        assert_eq!(sorted(&found.join(" ")), *wanted, "{typed}");
    }
}

#[test]
fn zsh_completes_names() {
    require!();
    let host = peopled();
    let file = format!("{}/zsh", host.dir().path().display());
    // A terminal of its own, in which the lines are typed; what is offered is written down.
    let lines = CASES.iter().map(|(typed, _)| {
        format!(
            "zpty -n -w z 'wharf {typed}'; zpty -n -w z $'\\x04'; zpty -n -w z $'\\x15'; zpty -w z 'print NEXT >>/run/got'\n"
        )
    });
    let wait = |word: &str| {
        format!(
            "repeat 400; do zpty -r -t z out; [[ $out == *{word}* ]] && break; sleep 0.05; done\n"
        )
    };
    let script = format!(
        "zmodload zsh/zpty; zpty -b z zsh -f -i
         zpty -w z 'PROMPT=; PATH=/run/bin:$PATH; autoload -U compinit; compinit -u -D; source {file}'
         zpty -w z 'compadd() {{ local -a got; builtin compadd -O got \"$@\"; print -r -- $got >>/run/got; builtin compadd \"$@\" }}'
         zpty -w z 'print REA''DY'
         {}{}zpty -w z 'print DO''NE'
         {}zpty -d z",
        wait("READY"),
        lines.collect::<String>(),
        wait("DONE")
    );
    host.command("zsh").args(["-f", "-c", &script]).run().ok();
    let got = host.sh("cat /run/got");
    let mut found = got.split("NEXT\n");
    for (typed, wanted) in CASES {
        assert_eq!(
            sorted(found.next().unwrap_or_default()),
            *wanted,
            "{typed}\n{got}"
        );
    }
}
