#![allow(clippy::unwrap_used)]
use store::{Db, DbConfig, Error, Sql};
use testkit::Galera;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves() {
    let cluster = Galera::start(2).await;
    let name = cluster.fresh_name();
    let dbs = [Db::connect(&DbConfig::new(cluster.url(0, &name))).await.unwrap(), Db::connect(&DbConfig::new(cluster.url(1, &name))).await.unwrap()];
    store::tx!(dbs[0], "t", |tx| {
        for s in ["CREATE TABLE a (id BIGINT PRIMARY KEY)", "CREATE TABLE b (id BIGINT PRIMARY KEY)", "CREATE TABLE c (id BIGINT PRIMARY KEY)", "CREATE TABLE hot (id BIGINT PRIMARY KEY, n BIGINT)", "INSERT INTO hot VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)"] { tx.exec(s).await?; }
        Ok::<_, Error>(())
    }).await.unwrap();
    let start = std::time::Instant::now();
    let run = (0..8i64).map(|w| { let dbs = dbs.clone(); tokio::spawn(async move {
        for i in 0..150 {
            let id = w * 1000 + i;
            let db = &dbs[(w % 2) as usize];
            let mut tries = 0;
            let r = store::tx!(db, "t", |tx| {
                tries += 1;
                tx.exec(Sql::new("INSERT INTO a VALUES (?)").bind(id)).await?;
                tx.exec(Sql::new("UPDATE hot SET n = n + 1 WHERE id = ?").bind(1 + (i + w) % 4)).await?;
                tx.exec(Sql::new("UPDATE hot SET n = n + 1 WHERE id = 5")).await?;
                let mut seen = 0;
                for round in 0..6 {
                    seen += tx.all("SELECT DISTINCT n FROM hot WHERE id IN (1, 2, 3, 4)").await?.len();
                    tx.exec(Sql::new(&format!("INSERT INTO c VALUES (?) /* {id}.{tries}.{round} */")).bind(id * 10 + round)).await?;
                }
                tx.exec(Sql::new(&format!("UPDATE hot /* {id}.{tries} */ SET n = n + 1 WHERE ")).in_list("id", [1 + i % 4, 5])).await?;
                let mine = tx.all(Sql::new("SELECT id FROM a WHERE id = ?").bind(id)).await?.len();
                if mine == 0 { eprintln!("LOST {id} {seen}"); }
                tx.exec(Sql::new(&format!("INSERT INTO b VALUES (?) /* {id}.{tries} */")).bind(id)).await?;
                Ok::<_, Error>(())
            }).await;
            if let Err(e) = r { eprintln!("{id}: {e} after {tries}"); }
        }
    })});
    for r in run.collect::<Vec<_>>() { r.await.unwrap(); }
    for (what, sql) in [("a without b", "SELECT COUNT(*) FROM a WHERE id NOT IN (SELECT id FROM b)"), ("b without a", "SELECT COUNT(*) FROM b WHERE id NOT IN (SELECT id FROM a)"), ("a", "SELECT COUNT(*) FROM a"), ("hot", "SELECT n FROM hot WHERE id = 5")] {
        let n: i64 = dbs[0].one(Sql::new(sql)).await.unwrap().at(0).unwrap();
        eprintln!("{what}: {n}");
    }
    eprintln!("retries {} {} took {:?}", dbs[0].stats().retries, dbs[1].stats().retries, start.elapsed());
}
