//! The generator of bad requests reaches every parameter.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use conformance::cases::{Actor, faults};
use conformance::declared;
use contract::api::RoleType;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

#[test]
fn each_parameter_is_made_wrong() {
    let ids = (1..100).map(|kind| (kind, format!("00000000-0000-4000-8000-{kind:012}"))).collect();
    let actor = Actor { role: RoleType::Admin, account: "admin".into(), ids, values: [].into() };
    let (mut commands, mut cases) = (0, 0);
    for command in declared::commands().unwrap() {
        let made = |seed| faults(command.info, &actor, 2, &mut StdRng::seed_from_u64(seed));
        let (some, again) = (made(1), made(1));
        assert_eq!(format!("{some:?}"), format!("{again:?}"), "the same seed makes the same requests");
        let named: BTreeSet<&str> =
            some.iter().flat_map(|c| &c.params).map(|(name, _)| name.split('[').next().unwrap_or_default()).collect();
        for param in command.info.params.iter() {
            assert!(named.contains(param.name.as_ref()), "{}.{} is never made wrong", command.info.name, param.name);
        }
        commands += 1;
        cases += some.len();
    }
    println!("{commands} commands, {cases} requests");
}
