//! Which stores take an image.

use crate::store::images::Room;

/// The stores that take a copy for a zone: all that its hosts reach for what is public, else the one with the fewest images,
/// the zone's own before those of all zones (TPL-050). Nothing when the zone has none.
pub fn choose(rooms: &[Room], zone: i64, public: bool) -> Vec<&Room> {
    let reached = rooms.iter().filter(|r| r.zone_id.is_none_or(|z| z == zone));
    if public {
        return reached.collect();
    }
    reached.min_by_key(|r| (r.zone_id.is_none(), r.images, r.id)).into_iter().collect()
}

/// The same for several zones: each store once.
pub fn choose_all<'r>(rooms: &'r [Room], zones: &[i64], public: bool) -> Vec<&'r Room> {
    let mut chosen: Vec<&Room> = Vec::new();
    for zone in zones {
        for room in choose(rooms, *zone, public) {
            if !chosen.iter().any(|c| c.id == room.id) {
                chosen.push(room);
            }
        }
    }
    chosen
}

/// A new place for an image of an account in a store.
pub fn path(account: i64, template: i64, format: &str) -> String {
    format!("template/tmpl/{account}/{template}/{}.{}", model::new_uuid(), format.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(id: i64, zone_id: Option<i64>, images: i64) -> Room {
        Room { id, uuid: format!("s{id}"), zone_id, images }
    }

    #[test]
    fn public_ones_lie_everywhere_private_ones_once() {
        let rooms = [room(1, Some(1), 5), room(2, Some(1), 4), room(3, Some(2), 0), room(4, None, 0)];
        let ids = |found: Vec<&Room>| found.iter().map(|r| r.id).collect::<Vec<_>>();
        assert_eq!(ids(choose(&rooms, 1, true)), [1, 2, 4]);
        assert_eq!(ids(choose(&rooms, 1, false)), [2]);
        assert_eq!(ids(choose(&rooms, 9, false)), [4]);
        assert_eq!(ids(choose(&rooms[..3], 9, true)), [] as [i64; 0]);
        assert_eq!(ids(choose_all(&rooms, &[1, 2], true)), [1, 2, 4, 3]);
    }
}
