//! What every store has to pass: the scripted cases, and random operations compared with the model.
//!
//! A store's tests implement [`Harness`] and name it once:
//!
//! ```ignore
//! rmom_core::conformance_tests!(MyHarness::start().await, model_cases = 64);
//! ```
//!
//! which makes a test of each scripted case, and one, `matches_the_model`, of [`matches_the_model`].

pub mod cases;
mod clock;
mod model;
mod support;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use clock::ManualClock;
pub use model::{matches_the_model, matches_the_model_on};

use crate::{model::StoreTime, ports::Store};

/// Where a fresh store's clock stands.
pub const START: StoreTime = StoreTime::from_millis(1_700_000_000_000);

/// How long one case may take.
const CASE_DEADLINE: Duration = Duration::from_secs(120);

/// One database under test. It has one store at a time; each test makes a harness of its own.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Empties the database and opens a store on it, its clock at [`START`]. No handle on the store before is left.
    async fn fresh(&self) -> Arc<dyn Store>;

    /// Sets the clock of the current store, which then stands still. Every later call goes by it.
    async fn set_clock(&self, now: StoreTime);

    /// Opens what [`Harness::fresh`] made once more, as a process does that starts after a crash. The handles before were
    /// dropped, as a crash does, and not shut down in good order. The clock goes on where it stood.
    async fn reopen(&self) -> Arc<dyn Store>;
}

/// Runs a case on a runtime of its own, on two threads, with a deadline.
///
/// # Panics
/// If the case does, or does not end in time.
pub fn run(case: impl Future<Output = ()>) {
    runtime().block_on(async {
        assert!(tokio::time::timeout(CASE_DEADLINE, case).await.is_ok(), "not done after {CASE_DEADLINE:?}");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().expect("a runtime can be built")
}

/// Makes a `#[test]` of each case, for the [`Harness`] that an expression gives; it may await.
///
/// `model_cases` is how many sequences of random operations are compared with the model; the environment variable
/// `RMOM_MODEL_CASES` overrides it.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr, model_cases = $model_cases:expr) => {
        #[test]
        fn matches_the_model() {
            $crate::store::conformance::matches_the_model(async { $harness }, $model_cases);
        }

        $crate::conformance_tests! { @cases $harness;
            appends:
                what_was_appended_is_read_back,
                a_stale_epoch_is_fenced,
                an_epoch_that_never_was_is_fenced,
                each_queue_of_a_group_has_its_own_fate,
                a_malformed_group_is_refused,
                a_group_may_hold_as_many_queues_as_the_limit,
                a_taken_offset_is_a_conflict,
                a_store_that_was_rolled_back_is_found_out,
                stored_at_never_goes_back,
                stored_at_does_not_follow_a_clock_that_was_far_ahead;
            brokers:
                a_broker_keeps_its_id_from_run_to_run,
                a_run_takes_the_place_of_the_one_it_names,
                a_registration_made_again_changes_the_lease_alone,
                a_renewal_extends_the_lease_and_is_counted,
                a_replaced_run_neither_renews_nor_retires,
                retiring_ends_the_lease_at_once,
                draining_is_set_cleared_and_told,
                a_broker_is_not_leased_because_the_clock_was_set_back,
                a_broker_is_forgotten_once_nothing_is_its_own,
                a_brokers_life_is_told,
                brokers_are_listed_with_their_live_queues;
            channels:
                a_channel_is_found_and_listed,
                the_start_is_fixed_at_creation,
                the_same_request_again_finds_its_channel,
                an_id_names_one_channel,
                several_channels_are_looked_up_at_once,
                channels_come_in_pages,
                channels_that_are_idle_go,
                a_channel_needs_a_live_queue;
            claims:
                every_claim_creates_the_next_epoch,
                only_the_assignee_claims,
                a_replaced_run_does_not_claim,
                a_claim_made_again_answers_alike_while_it_is_the_latest,
                an_assignment_confers_nothing_but_the_right_to_claim,
                rival_claimants_create_distinct_epochs,
                a_claim_and_its_retry_at_once_create_one_epoch,
                no_append_lands_behind_a_claim,
                a_deleted_queue_is_not_claimed;
            deletion:
                a_deleted_queue_refuses_all_writes,
                a_request_made_again_does_not_resurrect_its_queue,
                a_queue_that_never_was_refuses_all_writes,
                created_again_a_queue_is_new,
                a_purge_removes_deleted_queues_only,
                a_purge_reaches_several_queues,
                an_id_is_never_given_again,
                rivals_delete_and_create_a_queue;
            leadership:
                a_leader_stays_while_it_renews,
                a_leader_that_comes_back_first_goes_on,
                a_leader_that_resigns_is_succeeded_at_once,
                a_lease_does_not_outlast_a_clock_that_is_set_back,
                rival_managers_agree_on_the_leader;
            queues:
                a_label_names_one_live_queue,
                the_same_request_again_finds_its_queue,
                an_unknown_broker_gets_no_queue,
                queues_are_listed_by_label,
                queues_come_in_pages,
                an_assignment_is_compared_and_set,
                several_queues_are_assigned_in_one_step,
                a_malformed_group_of_assignments_is_refused,
                several_queues_are_looked_up_at_once,
                queues_are_read_page_by_page,
                assigned_queues_are_listed_by_id,
                a_change_grows_the_generation_of_those_it_concerns,
                one_of_several_creators_makes_the_queue,
                one_of_several_assignments_is_made;
            reads:
                a_read_begins_with_what_reaches_beyond_the_offset,
                a_read_keeps_to_its_bytes_but_gives_at_least_one_batch,
                headers_keep_to_their_limit,
                the_end_tells_what_is_stored,
                a_page_tells_what_it_proves,
                a_read_looks_through_a_span,
                queues_do_not_see_each_others_messages,
                a_queue_that_never_was_reads_as_empty,
                a_named_producer_gets_one_epoch_after_another,
                concurrent_openers_get_distinct_epochs,
                there_are_no_more_named_producers_than_may_be;
            trims:
                a_batch_expires_at_its_expiry_and_not_before,
                what_lives_for_ever_is_never_trimmed,
                a_trim_keeps_to_its_limit,
                nothing_beyond_the_snapshot_is_trimmed,
                trimmed_to_empty_the_log_keeps_its_end,
                the_batch_before_may_have_been_trimmed,
                expired_batches_between_live_ones_go,
                the_last_batch_stays_until_all_before_it_are_gone,
                the_producers_are_saved_and_read_back,
                older_producers_do_not_replace_newer_ones,
                a_trim_is_fenced,
                what_expired_first_goes_first,
                a_trim_looks_from_its_bound_on,
                the_end_tells_when_something_expires,
                a_trim_without_producers_keeps_to_those_that_are_saved,
                a_gap_is_passed_over_step_by_step,
                totals_survive_trims_and_crashes;
        }
    };
    (@cases $harness:expr; $($group:ident: $($case:ident),+;)+) => {
        $($(
            #[test]
            fn $case() {
                $crate::store::conformance::run(async {
                    let harness = $harness;
                    $crate::store::conformance::cases::$group::$case(&harness).await;
                });
            }
        )+)+
    };
}

#[cfg(test)]
mod tests {
    /// A case that nobody runs would go unnoticed.
    #[test]
    fn every_case_is_run() {
        let listed = include_str!("mod.rs");
        let sources = [
            include_str!("cases/appends.rs"),
            include_str!("cases/brokers.rs"),
            include_str!("cases/channels.rs"),
            include_str!("cases/claims.rs"),
            include_str!("cases/deletion.rs"),
            include_str!("cases/leadership.rs"),
            include_str!("cases/queues.rs"),
            include_str!("cases/reads.rs"),
            include_str!("cases/trims.rs"),
        ];
        let cases =
            sources.iter().flat_map(|source| source.lines()).filter_map(|line| line.strip_prefix("pub async fn "));
        let names: Vec<_> = cases.filter_map(|case| case.split('(').next()).collect();
        assert!(names.len() > 50);
        for name in names {
            assert!(
                listed.lines().any(|line| line.trim().trim_end_matches([',', ';']) == name),
                "{name} is not listed"
            );
        }
    }
}
