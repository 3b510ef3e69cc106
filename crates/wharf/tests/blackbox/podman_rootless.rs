//! Podman without privileges: a user's own, whose containers hang on a namespace that slirp4netns joins to the world.
//!
//! The user exists only in this test's mount namespace, and all of his processes are in a PID namespace that ends with
//! the script.

use crate::common::*;
use wharf_testkit::require;
use wharf_testkit::skip::Need;

const BUSYBOX: &str = "/bin/busybox";
const USER: u32 = 4242;

/// Everything the user has: a name, a range of further ids, a home, and wharf in Netavark's place. `$0` is wharf.
const HOME: &str = r#"
mount -t tmpfs tmpfs /home
mkdir -p /home/tester/helpers /home/tester/image/bin /home/tester/.config/containers /home/etc
for file in passwd group subuid subgid; do
    cp /etc/$file /home/etc/
done
echo "wharftest:x:4242:4242::/home/tester:/bin/sh" >>/home/etc/passwd
echo "wharftest:x:4242:" >>/home/etc/group
echo "wharftest:100000:65536" | tee -a /home/etc/subuid >>/home/etc/subgid
for file in passwd group subuid subgid; do mount --bind /home/etc/$file /etc/$file; done
mount -t tmpfs tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
# crun wants to see which sort of control groups there are, even to use none.
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/user/4242 /run/systemd /run/netns
cd /home/tester
touch wharf
mount --bind "$0" wharf
ln -s ../wharf helpers/netavark
cp /bin/busybox image/bin/busybox
for name in sh sleep cat httpd wget; do ln -s busybox image/bin/$name; done
cat >.config/containers/containers.conf <<X
[containers]
cgroups = "disabled"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
helper_binaries_dir = ["/home/tester/helpers", "/usr/lib/podman"]
[network]
network_backend = "netavark"
X
cat >.config/containers/storage.conf <<X
[storage]
driver = "vfs"
X
chown -R 4242:4242 /home/tester/image /home/tester/helpers /home/tester/.config /home/tester /run/user/4242
chmod 700 /run/user/4242
"#;

/// What the user does. What he is told goes to the standard output, part by part.
const STORY: &str = r#"
cd
part() { printf '== %s\n' "$1"; }
tar -C image -c . | podman import - tiny >/dev/null
podman network create blue >/dev/null
podman run -d --name web --network blue -p 8080:80 tiny sh -c 'cd /tmp 2>/dev/null || cd /; echo hello >index.html; exec httpd -f -p 80' >/dev/null
try() { for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 2 "$1" && return; sleep 0.3; done; }
part host; try http://127.0.0.1:8080/index.html
part sibling; podman run --rm --network blue tiny wget -q -O - http://web/index.html
part ps; podman unshare --rootless-netns ./wharf ps
part inspect; podman unshare --rootless-netns ./wharf inspect web --json
part trace; podman unshare --rootless-netns ./wharf trace --offline host web:80
part doctor; podman unshare --rootless-netns ./wharf doctor || true
podman rm -f -t 0 web >/dev/null
podman network rm blue >/dev/null
podman system migrate
"#;

#[test]
fn a_user_without_privileges_runs_containers() {
    require!(
        Need::Program("podman"),
        Need::Program("crun"),
        Need::Program("conmon"),
        Need::Program("newuidmap"),
        Need::Program("slirp4netns"),
        Need::Program(BUSYBOX),
    );
    let host = host();
    let wharf = env!("CARGO_BIN_EXE_wharf");
    host.sh(&format!("sh -euc '{HOME}' {wharf}"));
    let dir = host.dir().path().display().to_string();
    host.dir().write("story.sh", STORY);
    host.sh(&format!(
        "mv {dir}/story.sh /home/tester/story.sh; chmod 644 /home/tester/story.sh"
    ));
    let as_user = format!(
        "env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin HOME=/home/tester USER=wharftest XDG_RUNTIME_DIR=/run/user/{USER} \
         setpriv --reuid {USER} --regid {USER} --clear-groups sh -eu /home/tester/story.sh"
    );
    let said = host.sh(&format!(
        "unshare --pid --fork --kill-child --mount-proc {as_user}"
    ));
    let part = |name: &str| {
        let head = format!("== {name}\n");
        let (_, rest) = said
            .split_once(&head)
            .unwrap_or_else(|| panic!("no {name}: {said}"));
        rest.split("== ")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    assert_eq!(part("host"), "hello", "{said}");
    assert_eq!(part("sibling"), "hello", "{said}");
    let ps = part("ps");
    assert!(
        ps.contains("web") && ps.contains("blue") && ps.contains("netavark"),
        "{said}"
    );
    assert!(part("inspect").contains("\"blue\""), "{said}");
    assert!(part("trace").contains("delivered"), "{said}");
    assert!(!part("doctor").contains("error:"), "{said}");
}

#[test]
fn root_of_a_user_namespace_is_told_what_he_lacks() {
    require!(Need::Program("setpriv"));
    let host = host();
    let wharf = env!("CARGO_BIN_EXE_wharf");
    host.sh("touch /run/w; mkdir -p /run/own; chown 4242:4242 /run/own; chmod 755 /run");
    host.sh(&format!("mount --bind {wharf} /run/w"));
    let user = |words: &str| {
        host.command("setpriv")
            .args([
                "--reuid",
                "4242",
                "--regid",
                "4242",
                "--clear-groups",
                "env",
                "-i",
            ])
            .args(words.split(' '))
            .run()
    };
    let plain = user("/run/w ps");
    assert_eq!(plain.code, Some(1), "{}", plain.transcript());
    assert!(
        plain.stderr.contains("CAP_NET_ADMIN"),
        "{}",
        plain.transcript()
    );
    let mapped = user("unshare -Urn /run/w ps");
    assert_eq!(mapped.code, Some(1), "{}", mapped.transcript());
    for word in ["/run/wharf", "ermission denied", "WHARF_RUN_DIR"] {
        assert!(mapped.stderr.contains(word), "{}", mapped.transcript());
    }
    let chosen =
        user("WHARF_RUN_DIR=/run/own/run WHARF_STATE_DIR=/run/own/state unshare -Urn /run/w ps");
    assert_eq!(chosen.code, Some(0), "{}", chosen.transcript());
}
