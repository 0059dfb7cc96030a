//! What a fresh install has. Nothing that an administrator changed or removed comes back.

use crate::offering::NewOffering;
use crate::size::GIB;
use crate::store::{offerings, seeded, templates};
use contract::ApiError;
use store::{Db, Error};

/// Name, unique name, text, GiB (0: customized).
const DISK_OFFERINGS: &[(&str, &str, &str, i64)] = &[
    ("Small", "Cloud.Com-Small", "Small Disk, 5 GB", 5),
    ("Medium", "Cloud.Com-Medium", "Medium Disk, 20 GB", 20),
    ("Large", "Cloud.Com-Large", "Large Disk, 100 GB", 100),
    ("Custom", "Cloud.Com-Custom", "Custom Disk", 0),
];

/// The template of simulated hosts. Those of other hypervisors come with what downloads them.
const SIMULATOR: templates::Builtin = templates::Builtin {
    id: 111,
    unique_name: "centos56-x86_64-simulator",
    name: "CentOS 5.6 (64-bit) no GUI (Simulator)",
    format: "VHD",
    hypervisor: "Simulator",
    os_type_id: 142,
    bits: 64,
    size: 2 * GIB,
};

/// Numbers that the rows of a fresh install start with, for kinds that don't start with 1.
const FIRST_IDS: &[(&str, i64)] = &[("template", 200), ("storage_pool", 200)];

/// Writes what is missing. Replicas may do so at the same time.
///
/// # Errors
/// Those of the database.
pub async fn run(db: &Db) -> Result<(), ApiError> {
    for (kind, first) in FIRST_IDS {
        db.start_ids(kind, *first).await?;
    }
    let known = seeded::unique_names(db).await?;
    for (name, unique_name, text, gib) in DISK_OFFERINGS {
        if known.iter().any(|k| k == unique_name) {
            continue;
        }
        let (id, uuid) = (db.next_id("disk_offering").await?, model::new_uuid());
        let offering = disk_offering(name, text, *gib);
        let written = store::tx!(db, "seed-disk-offering", |tx| {
            offerings::insert(tx, id, &uuid, Some(unique_name), &offering).await.map(drop)
        })
        .await;
        unless_there(written)?;
    }
    if !known.iter().any(|k| k == SIMULATOR.unique_name) {
        let uuid = model::new_uuid();
        let written =
            store::tx!(db, "seed-template", |tx| templates::insert_builtin(tx, &uuid, &SIMULATOR).await).await;
        unless_there(written)?;
    }
    Ok(())
}

/// Another replica may have been faster.
fn unless_there(written: Result<(), Error>) -> Result<(), ApiError> {
    match written {
        Ok(()) | Err(Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn disk_offering(name: &str, text: &str, gib: i64) -> NewOffering {
    NewOffering {
        name: name.to_owned(),
        display_text: text.to_owned(),
        disk_size: gib * GIB,
        customized: gib == 0,
        customized_iops: None,
        min_iops: None,
        max_iops: None,
        snapshot_reserve: None,
        tags: None,
        storage_type: "shared".to_owned(),
        provisioning_type: "thin".to_owned(),
        display: true,
        bytes_read_rate: None,
        bytes_write_rate: None,
        iops_read_rate: None,
        iops_write_rate: None,
        domain: None,
    }
}
