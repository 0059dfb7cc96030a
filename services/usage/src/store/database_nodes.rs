//! What was told last of the database's nodes.

use crate::database::{Seen, State};
use store::{Db, Result, Row, Sql, Tx, Value};

const ALL: &str = "SELECT address, state, in_use FROM database_nodes ORDER BY address";

/// All of them.
pub(crate) async fn read(db: &Db) -> Result<Vec<Seen>> {
    seen(&db.all(Sql::new(ALL)).await?)
}

/// All of them, within a transaction.
pub(crate) async fn told(tx: &mut Tx) -> Result<Vec<Seen>> {
    seen(&tx.all(ALL).await?)
}

fn seen(rows: &[Row]) -> Result<Vec<Seen>> {
    let state = |name: String| match name.as_str() {
        "Well" => State::Well,
        "Apart" => State::Apart,
        _ => State::Away,
    };
    rows.iter().map(|r| Ok(Seen { address: r.at(0)?, state: state(r.at(1)?), in_use: r.at(2)? })).collect()
}

/// Replaces all.
pub(crate) async fn replace(tx: &mut Tx, nodes: &[Seen]) -> Result<()> {
    tx.exec("DELETE FROM database_nodes").await?;
    let mut sql = Sql::new("INSERT INTO database_nodes (address, state, in_use) VALUES ");
    for (i, node) in nodes.iter().enumerate() {
        let state = match node.state {
            State::Well => "Well",
            State::Apart => "Apart",
            State::Away => "Away",
        };
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(&node.address),
            Value::from(state),
            Value::from(i64::from(node.in_use)),
        ]);
    }
    if !nodes.is_empty() {
        tx.exec(sql).await?;
    }
    Ok(())
}
