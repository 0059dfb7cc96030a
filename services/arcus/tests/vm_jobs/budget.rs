//! What a deploy and a list may cost the database. Counted, not timed.

use crate::template::{Template, open};
use serde_json::Value;

/// All commits of one deploy, in whatever service; in sequence are: reservations (two at once), acceptance, place,
/// addresses beside disks, end: five. The rest is not waited for: the router's generation, the events' sequence.
const COMMITS: u64 = 11;
/// Statements of a page of virtual machines, whatever its size: rows, NICs, tags, pending jobs, count; and the caller's.
const LIST_STATEMENTS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploying_and_listing() {
    let template = Template::shared().await;
    let dir = template.copy();
    let (stack, api) = open(dir.path()).await;
    let ids = &template.ids;
    let deploy = |name: String| {
        let api = &api;
        async move {
            let params = [
                ("zoneid", ids.zone.as_str()),
                ("templateid", &ids.template),
                ("serviceofferingid", &ids.offering),
                ("networkids", &ids.network),
                ("name", &name),
            ];
            api.run("deployVirtualMachine", &params).await.unwrap()
        }
    };
    // Number blocks and caches are warm after the first ones.
    for i in 0..3 {
        deploy(format!("warm-{i}")).await;
    }
    let mut fewest = u64::MAX;
    for i in 0..5 {
        let before = stack.node.db.stats().commits;
        deploy(format!("cold-{i}")).await;
        fewest = fewest.min(stack.node.db.stats().commits - before);
    }
    println!("commits of a deploy: {fewest}");
    assert!(fewest <= COMMITS, "a deploy makes {fewest} commits");

    let list = |size: &'static str| {
        let api = &api;
        async move {
            let params = [("listall", "true"), ("page", "1"), ("pagesize", size)];
            let answer = api.call("listVirtualMachines", &params).await.unwrap();
            answer.get("virtualmachine").and_then(Value::as_array).unwrap().len()
        }
    };
    let mut counts = Vec::new();
    for size in ["2", "8"] {
        list(size).await;
        let look = || async {
            let before = stack.node.db.stats().statements;
            assert_eq!(list(size).await, size.parse::<usize>().unwrap());
            stack.node.db.stats().statements - before
        };
        counts.push(testkit::least(look).await);
    }
    println!("statements of a list: {counts:?}");
    assert_eq!(counts[0], counts[1], "the number of statements follows the page's size");
    assert!(counts[0] <= LIST_STATEMENTS, "a list takes {} statements", counts[0]);
    stack.shut_down().await;
}
