//! COMMITs that get lost on their way, and answers that get lost: each one of a job's, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use jobs::JobState;
use std::time::Duration;
use testkit::MariaDb;
use toy::proxy::{Loss, Proxy};
use toy::{Build, Toy, look};

async fn lose(fails: bool) {
    let server = MariaDb::shared().await;
    let proxy = Proxy::start(server.port()).await;
    let port = format!(":{}/", server.port());
    for loss in [Loss::Commit, Loss::Answer] {
        let mut n = 0;
        loop {
            let url = server.fresh_url().replace(&port, &format!(":{}/", proxy.port));
            let toy = Toy::new(&url).await;
            toy.db.next_id("job").await.unwrap(); // takes a block of numbers
            proxy.arm(n, loss);
            let job = Build { fail_after: fails.then(|| "top".to_owned()), ..Build::named("duck") };
            let uuid = toy.submit(job).await;
            let ended = tokio::time::timeout(Duration::from_secs(30), toy.replica.jobs.end_of(&uuid)).await;
            let ended = ended.unwrap_or_else(|_| panic!("{loss:?} of commit {n}: the job doesn't end")).unwrap();
            let told = format!("{loss:?} of commit {n}: {:?}", ended.error());
            if fails {
                assert_eq!(ended.state, JobState::Failed, "{told}");
                assert_eq!(look(&toy.db).await, "", "{told}");
            } else {
                assert_eq!(ended.state, JobState::Done, "{told}");
                let all = "toy duck Ready\npart duck/left x\npart duck/right x\npart duck/top x\n";
                assert_eq!(look(&toy.db).await, all, "{told}");
            }
            assert_eq!(toy::events(&toy.db).await.len(), 2, "{told}");
            let lost = proxy.lost();
            proxy.disarm();
            toy.replica.end().await;
            if !lost {
                break;
            }
            n += 1;
        }
        assert!(n >= 7, "only {n} commits were lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_succeeds_survives_lost_commits() {
    lose(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_survives_lost_commits() {
    lose(true).await;
}
