//! The story of the README: a web server in a container, published, seen from everywhere it should be.

use crate::common::*;
use wharf_testkit::skip::Need;
use wharf_testkit::{Answer, Echo, Host, Netns, Snapshot, addr, eventually, require};

const CURL: [&str; 4] = ["-sS", "--noproxy", "*", "--max-time"];

#[track_caller]
fn fetch(from: &Netns, url: &str) -> String {
    from.command("curl")
        .args(CURL)
        .arg("3")
        .arg(url)
        .run()
        .ok()
        .stdout
}

#[track_caller]
fn start_web(host: &Host) {
    host.dir().write("hello.txt", "hello from web\n");
    let dir = host.dir().path().to_string_lossy().into_owned();
    let server = [
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "5005:5000",
        "--",
        "python3",
        "-m",
        "http.server",
        "5000",
    ];
    host.wharf(&[&server[..], &["--directory", &dir]].concat())
        .ok();
    eventually("the web server answers", || {
        let curl = host
            .netns()
            .command("curl")
            .args(CURL)
            .args(["1", "http://10.0.2.2:5005/hello.txt"])
            .run();
        (curl.stdout == "hello from web\n").then_some(())
    });
}

#[test]
fn a_web_server_is_seen_from_everywhere_and_nothing_else_is() {
    require!(Need::Program("curl"), Need::Program("python3"));
    let host = host();
    let before = Snapshot::of(&host);
    start_web(&host);
    let web = address_of(&host, "web", false);
    let published = "http://10.0.2.2:5005/hello.txt";
    let direct = format!("http://{web}:5000/hello.txt");
    for url in [published, "http://127.0.0.1:5005/hello.txt", &direct] {
        assert_eq!(
            fetch(host.netns(), url),
            "hello from web\n",
            "{url} from the host"
        );
    }
    assert_eq!(
        fetch(host.outside(), published),
        "hello from web\n",
        "from outside"
    );
    for url in [published, "http://localhost:5000/hello.txt", &direct] {
        let got = host
            .wharf(&["exec", "web", "--", "curl", "-sS", "--max-time", "3", url])
            .ok()
            .stdout;
        assert_eq!(got, "hello from web\n", "{url} from itself");
    }
    for url in [published, &direct] {
        let got = host
            .wharf(&["run", "--rm", "--", "curl", "-sS", "--max-time", "3", url])
            .ok()
            .stdout;
        assert_eq!(got, "hello from web\n", "{url} from a sibling");
    }

    let inside = host.container("web");
    let _other = Echo::tcp(&inside, "web's second server", 5001);
    let outside = Echo::tcp(host.outside(), "outside", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 5000), Answer::Refused);
    assert_eq!(host.outside().tcp(addr::HOST4, 5001), Answer::Refused);
    for port in [5000, 5001, 5005] {
        let answer = host.outside().tcp_brief(web, port);
        assert!(
            !answer.reached(),
            "outside to {web} port {port} directly: {answer}"
        );
    }
    assert!(
        !host.outside().ping_brief(web).reached(),
        "outside pings the container"
    );
    assert_eq!(
        inside.tcp(addr::OUTSIDE4, 80).source(),
        Some(addr::HOST4),
        "the container reaches the outside"
    );
    assert_eq!(outside.served(), 1);

    assert_eq!(names(&host.w("ps --json").json()), ["web"]);
    host.w("rm -f web").ok();
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
    host.w("network rm default").ok();
    before.assert_same(&host, "the story of the README");
}

#[test]
fn the_tour_plays_to_its_end_and_leaves_nothing() {
    require!();
    let host = host();
    let before = Snapshot::of(&host);
    let tour = host.w("tour").ok();
    for word in [
        "172.18.0.0/16",
        "netns0",
        "netns1",
        "5005",
        "ip_forward",
        "masquerade",
    ] {
        assert!(
            tour.stdout.contains(word),
            "the tour should speak of {word}: {}",
            tour.transcript()
        );
    }
    before.assert_same(&host, "wharf tour");
    let told = host.w("tour --json").json();
    assert!(told.is_array() || told.is_object(), "{told}");
    before.assert_same(&host, "wharf tour --json");
}
