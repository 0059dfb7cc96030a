//! What the disk and the database give without Arcus: the ceiling of everything else.

use crate::report::{Figure, Part, Report};
use crate::table::number;
use anyhow::Result;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Sql};
use testkit::{Durability, MariaDb};

/// How long each is measured.
const TIME: Duration = Duration::from_secs(2);
/// Writers at once.
const WRITERS: [u32; 4] = [1, 8, 16, 64];

/// Measures the disk, SQLite and MariaDB.
///
/// # Errors
/// What can't be written.
pub async fn run(report: &mut Report) -> Result<()> {
    disk(report)?;
    sqlite(report).await?;
    let server = MariaDb::start(Durability::Disk).await;
    database("MariaDB", server.fresh_url(), report).await
}

/// Synchronous writes where temporary files go.
///
/// # Errors
/// What can't be written.
pub fn disk(report: &mut Report) -> Result<()> {
    let dir = testkit::temp_dir();
    let rate = flushes(&dir.path().join("flush"))?;
    let figure = Figure::new(Part::Raw, "synchronous 4 KiB writes a second", "", 0).with("per_second", rate);
    report.tell(figure.with_text(number(rate)))
}

/// Commits on SQLite.
///
/// # Errors
/// What can't be written.
pub async fn sqlite(report: &mut Report) -> Result<()> {
    let dir = testkit::temp_dir();
    database("SQLite", format!("sqlite:{}", dir.path().join("raw.db").display()), report).await
}

/// Commits of one-row inserts on the database at `url`, by each number of writers.
///
/// # Errors
/// What can't be written.
pub async fn database(name: &str, url: String, report: &mut Report) -> Result<()> {
    let db = Db::connect(&DbConfig { connections: 64, ..DbConfig::new(url) }).await?;
    store::tx!(db, "raw", |tx| {
        tx.exec("CREATE TABLE IF NOT EXISTS raw (id VARCHAR(40) PRIMARY KEY, n BIGINT NOT NULL)").await?;
        Ok::<_, store::Error>(())
    })
    .await?;
    for writers in WRITERS {
        let rate = commits(&db, writers).await?;
        let load = format!("{writers} writer{}", if writers == 1 { "" } else { "s" });
        let figure = Figure::new(Part::Raw, &format!("{name}: commits a second"), &load, 0);
        report.tell(figure.with("per_second", rate).with_text(number(rate)))?;
    }
    db.close().await;
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
    let begun = Instant::now();
    let db = Arc::new(db.clone());
    let tasks = (0..writers).map(|w| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut n = 0u32;
            while begun.elapsed() < TIME {
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
    Ok(f64::from(all) / begun.elapsed().as_secs_f64())
}
