use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn rules(places: usize, share: usize, lane: usize, all: usize) -> Rules {
    Rules { places, share, lane, all, patience: None }
}

/// Lets tasks that can run do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Works of lanes in the order in which they got their places, each until it is told to end.
struct World {
    gate: Gate<&'static str>,
    order: Arc<Mutex<Vec<&'static str>>>,
    end: Arc<tokio::sync::Semaphore>,
    refused: Arc<Mutex<Vec<(&'static str, Shed)>>>,
}

impl World {
    fn new(rules: Rules) -> World {
        let end = Arc::new(tokio::sync::Semaphore::new(0));
        World { gate: Gate::new(rules), order: Arc::default(), end, refused: Arc::default() }
    }

    async fn come(&self, lane: &'static str, n: usize) {
        for _ in 0..n {
            let (gate, order, end, refused) =
                (self.gate.clone(), self.order.clone(), self.end.clone(), self.refused.clone());
            tokio::spawn(async move {
                match gate.enter(lane).await {
                    Ok(_permit) => {
                        order.lock().unwrap().push(lane);
                        end.acquire().await.unwrap().forget();
                    }
                    Err(why) => refused.lock().unwrap().push((lane, why)),
                }
            });
        }
        settle().await;
    }

    async fn end(&self, n: usize) {
        for _ in 0..n {
            self.end.add_permits(1);
            settle().await;
        }
    }

    fn order(&self) -> String {
        self.order.lock().unwrap().concat()
    }
}

#[tokio::test]
async fn free_places_go_round_the_lanes() {
    let world = World::new(rules(2, 2, 1000, 1000));
    world.come("a", 100).await;
    world.come("b", 2).await;
    world.come("c", 1).await;
    assert_eq!(world.order(), "aa");
    world.end(6).await;
    assert_eq!(world.order(), "aabcabaa", "a lane of a hundred delays others by one turn");
    assert_eq!(world.gate.stats(), Stats { at_work: 2, waiting: 95, queues: 1 });
    world.end(97).await;
    assert_eq!(world.gate.stats(), Stats::default());
}

#[tokio::test]
async fn no_lane_has_all_places() {
    let world = World::new(Rules { lane: 10, ..Rules::places(8) });
    world.come("a", 20).await;
    assert_eq!(world.gate.stats(), Stats { at_work: 7, waiting: 10, queues: 1 });
    assert_eq!(world.refused.lock().unwrap().as_slice(), [("a", Shed::Full); 3]);
    world.come("b", 2).await;
    assert_eq!(world.order(), "aaaaaaab", "the place that the first lane may not have");
    world.end(1).await;
    assert_eq!(world.gate.stats().at_work, 8);
    world.end(18).await;
    assert_eq!(world.gate.stats(), Stats::default());
}

#[tokio::test]
async fn many_lanes_have_equal_parts_of_the_queue() {
    let world = World::new(rules(1, 1, 100, 12));
    world.come("a", 20).await;
    assert_eq!(world.gate.waiting_in(&"a"), 12);
    world.come("b", 20).await;
    assert_eq!(world.gate.waiting_in(&"b"), 6);
    world.come("c", 20).await;
    assert_eq!(world.gate.waiting_in(&"c"), 4, "a full house never keeps a newcomer out");
}

#[tokio::test]
async fn those_who_give_up_are_forgotten() {
    let gate = Gate::new(rules(1, 1, 10, 10));
    let held = gate.enter("a").await.unwrap();
    {
        let waiting = gate.enter("b");
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(1), waiting.as_mut()).await.is_err());
        assert_eq!(gate.stats().waiting, 1);
    }
    assert_eq!(gate.stats(), Stats { at_work: 1, waiting: 0, queues: 0 });
    drop(held);
    assert_eq!(gate.stats(), Stats::default());
    assert!(gate.enter("a").await.is_ok());
}

#[tokio::test]
async fn nobody_waits_too_long() {
    let patience = Patience { longest: Duration::from_millis(20), target: Duration::ZERO, standing: Duration::MAX };
    let gate = Gate::new(Rules { patience: Some(patience), ..rules(1, 1, 10, 10) });
    let _held = gate.enter("a").await.unwrap();
    let (one, other) = tokio::join!(gate.enter("a"), gate.enter("b"));
    assert_eq!((one.unwrap_err(), other.unwrap_err()), (Shed::Late, Shed::Late));
    assert_eq!(gate.stats(), Stats { at_work: 1, waiting: 0, queues: 0 });
}

#[test]
fn a_queue_that_stands_is_cut_to_the_target() {
    let seconds = Duration::from_secs;
    let patience = Patience { longest: seconds(60), target: seconds(1), standing: seconds(5) };
    let mut state = State::new(Rules { patience: Some(patience), ..rules(1, 1, 1000, 1000) });
    let start = Instant::now();
    let come = |state: &mut State<&str, u32>, lane, at, who| state.arrive(&lane, start + seconds(at), who);
    let next = |state: &mut State<&str, u32>, lane, at| {
        state.leave(&lane);
        let mut told = Vec::new();
        while let Some(next) = state.next(start + seconds(at)) {
            told.push(match next {
                Next::Work(_, who, waited) => (who, waited.as_secs(), true),
                Next::Refused(who) => (who, 0, false),
            });
        }
        told
    };
    assert_eq!(come(&mut state, "a", 0, 0), Arrival::AtWork);
    for who in 1..=3 {
        assert!(matches!(come(&mut state, "a", 0, who), Arrival::Waits(_)));
    }
    // A burst is worked off, however long its last one waits…
    assert_eq!(next(&mut state, "a", 5), [(1, 5, true)]);
    // … but not a queue that doesn't get empty: its head is refused, its last one never.
    assert!(matches!(come(&mut state, "a", 5, 4), Arrival::Waits(_)));
    assert_eq!(next(&mut state, "a", 7), [(2, 0, false), (3, 0, false), (4, 2, true)]);
    // The next one finds an empty queue, and time again.
    for who in 5..=6 {
        assert!(matches!(come(&mut state, "a", 8, who), Arrival::Waits(_)));
    }
    assert_eq!(next(&mut state, "a", 12), [(5, 4, true)]);
    // Another lane has a clock of its own.
    for who in 7..=8 {
        assert!(matches!(come(&mut state, "b", 12, who), Arrival::Waits(_)));
    }
    assert_eq!(next(&mut state, "a", 14), [(7, 2, true)]);
    assert_eq!(next(&mut state, "b", 15), [(6, 7, true)], "the last one");
}

proptest! {
    /// Whatever comes, leaves and gives up in whatever order: bounds hold, nobody is lost, no place stays empty while
    /// somebody who may have it waits, and everything is forgotten in the end.
    #[test]
    fn books_balance(steps in proptest::collection::vec((0u8..4, 0u8..5), 1..200), places in 1usize..6, share in 1usize..6) {
        let rules = Rules { places, share, lane: 5, all: 12, patience: None };
        let mut state: State<u8, u64> = State::new(rules);
        let now = Instant::now();
        let mut waiting: Vec<(u8, u64)> = Vec::new();
        let mut at_work: Vec<u8> = Vec::new();
        let pass_on = |state: &mut State<u8, u64>, waiting: &mut Vec<(u8, u64)>, at_work: &mut Vec<u8>| {
            while let Some(Next::Work(lane, _, _)) = state.next(now) {
                let first = waiting.iter().position(|(l, _)| *l == lane).unwrap();
                waiting.remove(first);
                at_work.push(lane);
            }
        };
        for (what, lane) in steps {
            match what {
                0 | 1 => match state.arrive(&lane, now, 0) {
                    Arrival::AtWork => at_work.push(lane),
                    Arrival::Waits(ticket) => waiting.push((lane, ticket)),
                    Arrival::Refused => prop_assert!(waiting.iter().any(|(l, _)| *l == lane)),
                },
                2 if !at_work.is_empty() => {
                    let lane = at_work.remove(usize::from(lane) % at_work.len());
                    state.leave(&lane);
                    pass_on(&mut state, &mut waiting, &mut at_work);
                }
                3 if !waiting.is_empty() => {
                    let (lane, ticket) = waiting.remove(usize::from(lane) % waiting.len());
                    state.give_up(&lane, ticket);
                }
                _ => {}
            }
            let of = |lane: u8| at_work.iter().filter(|l| **l == lane).count();
            let mut queues: BTreeMap<u8, usize> = BTreeMap::new();
            waiting.iter().for_each(|(lane, _)| *queues.entry(*lane).or_default() += 1);
            prop_assert_eq!(state.stats(), Stats { at_work: at_work.len(), waiting: waiting.len(), queues: queues.len() });
            prop_assert!(at_work.len() <= places && (0..5).all(|l| of(l) <= share));
            prop_assert!(queues.values().all(|n| *n <= 5));
            prop_assert!(at_work.len() == places || queues.keys().all(|l| of(*l) >= share));
        }
        for (lane, ticket) in waiting.drain(..) {
            state.give_up(&lane, ticket);
        }
        for lane in at_work.drain(..) {
            state.leave(&lane);
        }
        prop_assert_eq!(state.stats(), Stats::default());
        prop_assert!(state.is_empty());
    }
}
