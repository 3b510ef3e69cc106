//! Properties of plans over random topologies, on a kernel in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../wharf-core/tests/common/mod.rs"]
mod common;

use proptest::prelude::*;
use wharf_core::compile;
use wharf_core::diff::diff;
use wharf_core::model::Resource;
use wharf_core::plan::Undo;
use wharf_engine::kernel::fake::FakeKernel;
use wharf_engine::kernel::{Kernel, execute};

/// A topology: of four networks with different settings some, of four containers some, each on some.
fn topology() -> impl Strategy<Value = String> {
    (any::<[bool; 4]>(), any::<[Option<(u8, u8)>; 4]>()).prop_map(|(networks, containers)| {
        let settings = [
            "subnet = '10.1.0.0/24'",
            "subnet = ['10.2.0.0/24', 'fd00:2::/64']\nicc = false",
            "subnet = '10.3.0.0/24'\ninternal = true",
            "subnet = ['10.4.0.0/24', 'fd00:4::/64']\noptions = { host-access = 'dns' }",
        ];
        let mut text = String::new();
        for n in (0..4).filter(|n| networks[*n]) {
            text += &format!("[networks.n{n}]\n{}\n", settings[n]);
        }
        for (c, (on, ports)) in containers
            .iter()
            .enumerate()
            .filter_map(|(c, x)| Some((c, (*x)?)))
        {
            let on: Vec<String> = (0..4)
                .filter(|n| networks[*n] && on & (1 << n) != 0)
                .map(|n| {
                    let v6 = if n % 2 == 1 {
                        format!(",ip=fd00:{}::{c}a", n + 1)
                    } else {
                        String::new()
                    };
                    format!(
                        "'n{n}:interface=eth{n},host-interface=v{c}-{n},ip=10.{}.0.1{c}{v6}'",
                        n + 1
                    )
                })
                .collect();
            if on.is_empty() {
                continue;
            }
            let all = [
                format!("'80{c}0:80'"),
                format!("'9{c}00-9{c}10:9{c}00-9{c}10/udp'"),
                format!("'127.0.0.1:70{c}0:70'"),
            ];
            let ports: Vec<&str> = (0..3)
                .filter(|p| ports & (1 << p) != 0)
                .map(|p| all[p].as_str())
                .collect();
            text += &format!(
                "[containers.c{c}]\nnetworks = [{}]\nports = [{}]\n",
                on.join(", "),
                ports.join(", ")
            );
        }
        text
    })
}

fn build(text: &str) -> Vec<Resource> {
    let mut state = compile::base();
    state.extend(common::state(toml::from_str(text).unwrap()));
    state
}

/// The kernel holds `state` and nothing else, or what is different.
fn holds(kernel: &FakeKernel, state: &[Resource]) -> Result<(), TestCaseError> {
    let is = kernel.state();
    let other = FakeKernel::holding(state);
    let missing: Vec<_> = other
        .state()
        .iter()
        .filter(|(k, r)| is.get(k) != Some(*r))
        .collect();
    let extra: Vec<_> = is
        .keys()
        .filter(|k| !other.state().contains_key(k))
        .collect();
    prop_assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, extra {extra:?}"
    );
    Ok(())
}

fn apply(kernel: &mut FakeKernel, desired: &[Resource], before: &[Resource]) {
    let plan = diff(desired, before, "test");
    if let Err(e) = execute(kernel, &plan) {
        panic!("{:?}", e.error);
    }
}

/// Removing so many containers is planned in half a second; it took most of a minute where each object
/// of one was compared with all objects of all.
#[test]
fn the_removal_of_many_is_no_matter_of_patience() {
    const MANY: usize = 1500;
    let mut text = "[networks.n]\nsubnet = '10.1.0.0/16'\n".to_owned();
    for n in 0..MANY {
        let port = 10_000 + n;
        text += &format!(
            "[containers.c{n}]\nnetworks = ['n:host-interface=v{n}']\nports = ['{port}:80']\n"
        );
    }
    let mut state = build(&text);
    state.sort_by_key(compile::rank);
    let start = std::time::Instant::now();
    let plan = diff(&[], &state, "test");
    let took = start.elapsed();
    assert!(plan.steps.len() > MANY);
    assert!(took.as_secs() < 20, "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_states_need_nothing(state in topology()) {
        let state = build(&state);
        prop_assert!(diff(&state, &state, "test").is_empty());
    }

    #[test]
    fn a_walk_arrives_everywhere(walk in prop::collection::vec(topology(), 1..6)) {
        let mut kernel = FakeKernel::new();
        let mut before = Vec::new();
        for state in walk {
            let state = build(&state);
            apply(&mut kernel, &state, &before);
            holds(&kernel, &state)?;
            prop_assert!(diff(&state, &kernel.observed(&state), "test").is_empty());
            before = state;
        }
    }

    #[test]
    fn undo_restores(before in topology(), after in topology()) {
        let (before, after) = (build(&before), build(&after));
        let mut kernel = FakeKernel::holding(&before);
        let plan = diff(&after, &before, "test");
        prop_assert!(execute(&mut kernel, &plan).is_ok());
        for step in plan.steps.iter().rev() {
            if let Undo::Ops(ops) = &step.undo {
                let ops: Vec<_> = ops.iter().collect();
                prop_assert!(kernel.apply(&ops).is_ok(), "{:?}", ops);
            }
        }
        holds(&kernel, &before)?;
    }

    #[test]
    fn a_failure_anywhere_leaves_what_was(before in topology(), after in topology(), batches: bool) {
        let (before, after) = (build(&before), build(&after));
        let plan = diff(&after, &before, "test");
        for n in 0..plan.steps.len() {
            let mut kernel = FakeKernel::holding(&before);
            kernel.batches = batches;
            kernel.fail_at = Some(n);
            let error = execute(&mut kernel, &plan).unwrap_err();
            prop_assert!(error.left.is_empty(), "step {n}: {:?}", error.left);
            prop_assert_eq!(error.undone, error.done);
            holds(&kernel, &before)?;
        }
    }
}
