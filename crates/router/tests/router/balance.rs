//! Load balancing.

use crate::lab::{Lab, OUTSIDE, balancer, forward, guest, open, spec, wait};
use contract_agent::{LoadBalancer, RouterSpec, Stickiness};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

const PUBLIC: &str = "198.51.100.13";
const AT: &str = "198.51.100.13:80";

fn balanced(rules: Vec<LoadBalancer>) -> RouterSpec {
    let mut all = spec();
    all.load_balancers.as_mut().unwrap().list = rules;
    all.firewall.as_mut().unwrap().ingress = vec![open("x", PUBLIC, 80, 90)];
    all
}

fn who(lab: &Lab, times: usize) -> Vec<String> {
    let name = |answer: String| answer.split(' ').next().unwrap_or_default().to_owned();
    (0..times).filter_map(|_| lab.reach("out", AT)).map(name).collect()
}

fn both(answers: &[String]) -> bool {
    answers.iter().any(|a| a == "g1") && answers.iter().any(|a| a == "g2")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_shared_by_the_algorithm() {
    let Some(mut lab) = Lab::new("load balancing").await else { return };
    lab.address_guests();
    lab.serve("g1", 8000);
    lab.serve("g2", 8000);
    let rule = |algorithm: &str| LoadBalancer { algorithm: algorithm.into(), ..balancer("l", PUBLIC, 80, 8000) };
    lab.apply(balanced(vec![rule("roundrobin")])).await;
    let answers = who(&lab, 6);
    assert_eq!(answers.iter().filter(|a| *a == "g1").count(), 3, "in turn: {answers:?}");
    assert_eq!(answers.len(), 6);
    assert!(lab.reach("g1", AT).is_some(), "a guest by the public address");

    lab.apply(balanced(vec![rule("source")])).await;
    let answers = who(&lab, 6);
    assert!(answers.len() == 6 && !both(&answers), "one client, one member: {answers:?}");

    lab.apply(balanced(vec![rule("leastconn")])).await;
    let mut held = BufReader::new(lab.connect("out", AT).expect("a connection"));
    let mut first = String::new();
    held.read_line(&mut first).unwrap();
    let next = lab.reach("out", AT).expect("an answer");
    assert_ne!(first.get(..2), next.get(..2), "the one with fewer connections");

    // A member goes: the connections of the other live on.
    let stays = if first.starts_with("g1") { guest(1) } else { guest(2) };
    lab.apply(balanced(vec![LoadBalancer { members: vec![stays], ..rule("leastconn") }])).await;
    assert!(who(&lab, 4).iter().all(|a| first.starts_with(a.as_str())));
    held.get_mut().write_all(b"still\n").unwrap();
    let mut line = String::new();
    held.read_line(&mut line).unwrap();
    assert_eq!(line, "still\n");

    let narrow = LoadBalancer { cidrs: vec!["192.0.2.0/24".into()], ..rule("roundrobin") };
    lab.apply(balanced(vec![narrow])).await;
    assert!(who(&lab, 1).is_empty(), "for another source");
    let mut shut = balanced(vec![rule("roundrobin")]);
    shut.firewall.as_mut().unwrap().ingress.clear();
    lab.apply(shut).await;
    assert!(who(&lab, 1).is_empty(), "without a firewall rule");
    lab.apply(balanced(vec![])).await;
    wait("haproxy's end", || lab.daemons("haproxy").is_empty());
    assert!(who(&lab, 1).is_empty(), "the rule is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_gets_nothing() {
    let Some(mut lab) = Lab::new("a dead member").await else { return };
    lab.address_guests();
    lab.serve("g1", 8000);
    lab.apply(balanced(vec![balancer("l", PUBLIC, 80, 8000)])).await;
    wait("the check", || who(&lab, 4) == ["g1", "g1", "g1", "g1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stick_to_their_member() {
    let Some(mut lab) = Lab::new("stickiness").await else { return };
    lab.address_guests();
    lab.serve_http("g1", 8000);
    lab.serve_http("g2", 8000);
    let rule = |method: &str, params: &[(&str, &str)]| {
        let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let stickiness = Some(Stickiness { method: method.into(), params });
        balanced(vec![LoadBalancer { stickiness, ..balancer("l", PUBLIC, 80, 8000) }])
    };
    let ask = |lab: &Lab, path: &str, cookie: &str| lab.get("out", AT, path, cookie).expect("an answer");
    let name = |answer: &str| answer.rsplit("\r\n").next().unwrap_or_default().to_owned();

    lab.apply(rule("LbCookie", &[("cookie-name", "LB"), ("nocache", "true"), ("indirect", "true")])).await;
    let first = ask(&lab, "/", "");
    let set = first.lines().find_map(|l| l.strip_prefix("set-cookie: LB=")).expect("a cookie");
    let cookie = format!("Cookie: LB={}\r\n", set.split(';').next().unwrap());
    let stuck: Vec<String> = (0..4).map(|_| name(&ask(&lab, "/", &cookie))).collect();
    assert!(stuck.iter().all(|n| *n == name(&first)), "{stuck:?}");
    let free: Vec<String> = (0..4).map(|_| name(&ask(&lab, "/", ""))).collect();
    assert!(both(&free), "without the cookie: {free:?}");

    lab.apply(rule("AppCookie", &[("cookie-name", "SESSION"), ("length", "40"), ("holdtime", "1h")])).await;
    let first = name(&ask(&lab, "/login", ""));
    let cookie = format!("Cookie: SESSION={first}x\r\n");
    let stuck: Vec<String> = (0..4).map(|_| name(&ask(&lab, "/", &cookie))).collect();
    assert!(stuck.iter().all(|n| *n == first), "{stuck:?}");
    let stuck: Vec<String> = (0..4).map(|_| name(&ask(&lab, &format!("/a;SESSION={first}x"), ""))).collect();
    assert!(stuck.iter().all(|n| *n == first), "in the URL: {stuck:?}");

    let mut all = rule("SourceBased", &[("tablesize", "10k"), ("expire", "1h")]);
    lab.apply(all.clone()).await;
    let first = name(&ask(&lab, "/", ""));
    assert!((0..4).all(|_| name(&ask(&lab, "/", "")) == first));
    // What haproxy learnt outlives a change of its rules.
    all.load_balancers.as_mut().unwrap().list.push(balancer("other", PUBLIC, 81, 8000));
    lab.apply(all).await;
    assert!((0..4).all(|_| name(&ask(&lab, "/", "")) == first), "after a change");
}

/// One line there and back.
fn echo(stream: &mut BufReader<TcpStream>) {
    stream.get_mut().write_all(b"alive\n").expect("a living connection");
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    assert_eq!(line, "alive\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_survive_changes() {
    let Some(mut lab) = Lab::new("connections under changes").await else { return };
    lab.address_guests();
    for (part, port) in [("g1", 8000), ("g2", 8000), ("g1", 22), ("out", 7000)] {
        lab.serve(part, port);
    }
    let mut all = balanced(vec![balancer("l", PUBLIC, 80, 8000)]);
    all.nat.as_mut().unwrap().forwards = vec![forward("f", PUBLIC, (22, 22), &guest(1), 22)];
    all.firewall.as_mut().unwrap().ingress.push(open("y", PUBLIC, 22, 22));
    all.firewall.as_mut().unwrap().egress_default_allow = true;
    lab.apply(all.clone()).await;
    let paths = [("out", AT.to_owned()), ("out", format!("{PUBLIC}:22")), ("g2", format!("{OUTSIDE}:7000"))];
    let mut open_ones: Vec<BufReader<TcpStream>> = paths
        .iter()
        .map(|(from, to)| {
            let stream = lab.connect(from, to).expect("a connection");
            stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let mut reader = BufReader::new(stream);
            let mut greeting = String::new();
            reader.read_line(&mut greeting).expect("a greeting");
            reader
        })
        .collect();
    let master = lab.daemons("haproxy").remove(0);
    for i in 0..4_u8 {
        let n = u32::from(i);
        all.nat.as_mut().unwrap().forwards.push(forward(&format!("n{n}"), PUBLIC, (5000 + n, 5000 + n), &guest(1), 22));
        all.firewall.as_mut().unwrap().ingress.push(open(&format!("n{n}"), PUBLIC, 5000 + n, 5000 + n));
        all.load_balancers.as_mut().unwrap().list.push(balancer(&format!("n{n}"), PUBLIC, 81 + n, 8000));
        let addresses = &mut all.interfaces.as_mut().unwrap().list[1].addresses;
        addresses.push(format!("198.51.100.{}/24", 50 + i));
        let mut vms = all.metadata.as_ref().unwrap().vms.clone();
        vms[0].user_data = Some(vec![i]);
        all.metadata.as_mut().unwrap().vms = vms;
        lab.apply(all.clone()).await;
        open_ones.iter_mut().for_each(echo);
        assert_eq!(
            lab.reach("out", &format!("{PUBLIC}:{}", 5000 + n)),
            Some(format!("g1 {OUTSIDE}")),
            "the new rule holds"
        );
        assert!(lab.reach("out", &format!("{PUBLIC}:{}", 81 + n)).is_some());
    }
    assert!(lab.daemons("haproxy").contains(&master), "its master goes on");
    lab.restart_agent();
    lab.routers.resume().await;
    open_ones.iter_mut().for_each(echo);
}
