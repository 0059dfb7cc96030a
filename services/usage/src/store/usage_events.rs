//! Facts for accounting.

use contract::ApiError;
use events::UsageRecord;
use store::{Sql, Tx, Value};

/// Rows of one statement.
const CHUNK: usize = 64;

/// Writes facts under their numbers.
pub(crate) async fn insert(tx: &mut Tx, facts: &[(i64, &UsageRecord)]) -> Result<(), ApiError> {
    for chunk in facts.chunks(CHUNK) {
        let mut sql = Sql::new(
            "INSERT INTO usage_events (id, type, account_id, domain_id, domain_path, zone_id, resource_id, resource_uuid, \
             resource_name, offering_id, template_id, size, resource_type, created) VALUES ",
        );
        for (i, (seq, fact)) in chunk.iter().enumerate() {
            sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
                Value::from(*seq),
                Value::from(&fact.kind),
                Value::from(fact.owner.account_id),
                Value::from(fact.owner.domain_id),
                Value::from(&fact.owner.domain_path),
                Value::from(fact.zone_id),
                Value::from(fact.resource_id),
                Value::from(&fact.resource_uuid),
                Value::from(super::events::cut(&fact.resource_name, 255)),
                Value::from(fact.offering_id),
                Value::from(fact.template_id),
                Value::from(fact.size),
                Value::from(fact.resource_type.as_deref()),
                Value::from(fact.created),
            ]);
        }
        tx.exec(sql).await?;
    }
    Ok(())
}
