//! What the disk and the database give without Arcus: the ceiling of everything else.

use anyhow::Result;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Sql};
use testkit::{Durability, MariaDb};

const TIME: Duration = Duration::from_secs(3);

/// Prints synchronous writes a second, and commits a second of 1, 16 and 64 writers on SQLite and MariaDB.
pub async fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    println!("disk: {:.0} synchronous 4 KiB writes/s", flushes(&dir.path().join("flush"))?);
    let server = MariaDb::start(Durability::Disk).await;
    for (name, url) in
        [("SQLite", format!("sqlite:{}", dir.path().join("raw.db").display())), ("MariaDB", server.fresh_url())]
    {
        let db = Db::connect(&DbConfig { connections: 64, ..DbConfig::new(url) }).await?;
        store::tx!(db, "raw", |tx| {
            tx.exec("CREATE TABLE IF NOT EXISTS raw (id VARCHAR(40) PRIMARY KEY, n BIGINT NOT NULL)").await?;
            Ok::<_, store::Error>(())
        })
        .await?;
        for writers in [1, 16, 64] {
            println!("{name}: {writers} writers: {:.0} commits/s", commits(&db, writers).await?);
        }
    }
    Ok(())
}

fn flushes(file: &std::path::Path) -> Result<f64> {
    let mut out = std::fs::File::create(file)?;
    let begun = Instant::now();
    let mut n = 0u32;
    while begun.elapsed() < TIME {
        out.write_all(&[7; 4096])?;
        out.sync_data()?;
        n += 1;
    }
    Ok(f64::from(n) / begun.elapsed().as_secs_f64())
}

async fn commits(db: &Db, writers: u32) -> Result<f64> {
    let end = Instant::now() + TIME;
    let db = Arc::new(db.clone());
    let tasks = (0..writers).map(|w| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut n = 0u32;
            while Instant::now() < end {
                let id = format!("{writers}-{w}-{n}");
                store::tx!(db, "raw", |tx| {
                    tx.exec(Sql::new("INSERT INTO raw (id, n) VALUES (?, 1)").bind(&id)).await?;
                    Ok::<_, store::Error>(())
                })
                .await?;
                n += 1;
            }
            Ok::<u32, store::Error>(n)
        })
    });
    let mut all = 0;
    for task in futures::future::join_all(tasks).await {
        all += task??;
    }
    Ok(f64::from(all) / TIME.as_secs_f64())
}
