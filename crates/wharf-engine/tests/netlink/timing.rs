//! How long an attachment takes; printed, not judged.

use std::time::Instant;

use wharf_core::diff::diff;
use wharf_core::model::Resource;
use wharf_engine::kernel::execute;
use wharf_engine::kernel::netlink::NetlinkKernel;

use super::alone;
use super::attach::desired;

#[test]
fn attach_and_detach() {
    if !alone() {
        return;
    }
    let all = desired();
    // The last container of the list, whose namespace is there already.
    let split = all
        .iter()
        .position(|r| matches!(r, Resource::Netns(_)))
        .unwrap();
    let second = split
        + 1
        + all[split + 1..]
            .iter()
            .position(|r| matches!(r, Resource::Netns(_)))
            .unwrap();
    let keep = second + 2;
    execute(&mut NetlinkKernel::new(), &diff(&all[..keep], &[], "")).unwrap();
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let plan = diff(&all, &all[..keep], "");
        let start = Instant::now();
        let mut kernel = NetlinkKernel::new();
        execute(&mut kernel, &plan).unwrap();
        drop(kernel);
        attach.push(start.elapsed());
        let plan = diff(&all[..keep], &all, "");
        let start = Instant::now();
        let mut kernel = NetlinkKernel::new();
        execute(&mut kernel, &plan).unwrap();
        drop(kernel);
        detach.push(start.elapsed());
        std::thread::sleep(std::time::Duration::from_millis(40));
    }
    attach.sort();
    detach.sort();
    println!(
        "attach {:?} (min {:?}, max {:?})",
        attach[10], attach[0], attach[19]
    );
    println!(
        "detach {:?} (min {:?}, max {:?})",
        detach[10], detach[0], detach[19]
    );
}
