//! The deployment planners of 4.11 by name. Each is a [`super::Strategy`] over the index.

/// A planner: in which order clusters are looked at, and which hosts are in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Planner {
    /// The cluster first of which least is allocated.
    #[default]
    FirstFit,
    /// The cluster first that has the fewest VMs of the account.
    UserDispersing,
    /// The clusters first of the pods that have most VMs of the account.
    UserConcentratedPod,
    /// Hosts that only the account uses.
    ImplicitDedication,
    /// As [`Planner::FirstFit`], also beyond the clusters' disable thresholds.
    SkipHeuristics,
}

impl Planner {
    /// All of them, in 4.11's order (`deployment.planners.order`). Its `BareMetalPlanner` isn't there: there are no bare-metal hosts.
    pub const ALL: [Planner; 5] = [
        Planner::FirstFit,
        Planner::UserDispersing,
        Planner::UserConcentratedPod,
        Planner::ImplicitDedication,
        Planner::SkipHeuristics,
    ];

    /// Its name in requests, offerings and settings (VM-028).
    pub const fn name(self) -> &'static str {
        match self {
            Planner::FirstFit => "FirstFitPlanner",
            Planner::UserDispersing => "UserDispersingPlanner",
            Planner::UserConcentratedPod => "UserConcentratedPodPlanner",
            Planner::ImplicitDedication => "ImplicitDedicationPlanner",
            Planner::SkipHeuristics => "SkipHeuristicsPlanner",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Planner> {
        Planner::ALL.into_iter().find(|planner| planner.name() == name)
    }

    /// Whether it looks at what else the account has: its placements take turns then.
    pub(crate) const fn minds_others(self) -> bool {
        matches!(self, Planner::UserDispersing | Planner::UserConcentratedPod | Planner::ImplicitDedication)
    }
}

/// How strictly [`Planner::ImplicitDedication`] keeps accounts apart (VM-029).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A host is never shared.
    #[default]
    Strict,
    /// Shared hosts serve when there are no others.
    Preferred,
}

impl Mode {
    /// The offering's detail that names it.
    pub const DETAIL: &'static str = "ImplicitDedicationMode";

    /// Reads the detail; an offering without it is strict, as in 4.11. None: another word.
    pub fn parse(word: Option<&str>) -> Option<Mode> {
        match word {
            None => Some(Mode::Strict),
            Some(word) if word.eq_ignore_ascii_case("Strict") => Some(Mode::Strict),
            Some(word) if word.eq_ignore_ascii_case("Preferred") => Some(Mode::Preferred),
            Some(_) => None,
        }
    }
}
