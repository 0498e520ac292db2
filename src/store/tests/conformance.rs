//! The conformance suite against both engines.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use async_trait::async_trait;
use vatra_store::{
    Engine, MemoryEngine,
    testing::conformance::{self, Place},
};
use vatra_store_rocksdb::{RocksEngine, Settings};

#[derive(Default)]
struct InMemory(MemoryEngine);

#[async_trait]
impl Place for InMemory {
    async fn open(&self) -> Arc<dyn Engine> {
        Arc::new(self.0.clone())
    }
}

struct OnDisk(tempfile::TempDir);

impl Default for OnDisk {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Place for OnDisk {
    async fn open(&self) -> Arc<dyn Engine> {
        Arc::new(
            RocksEngine::open(self.0.path(), &Settings::default())
                .await
                .unwrap(),
        )
    }
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    conformance::$name(&InMemory::default()).await.unwrap();
                }
            )*
        }

        mod rocksdb {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    conformance::$name(&OnDisk::default()).await.unwrap();
                }
            )*
        }
    };
}

suite!(
    rows_are_written_replaced_and_deleted,
    a_view_is_a_snapshot,
    many_rows_come_in_the_order_asked,
    ranges_have_bounds_directions_and_limits,
    operations_apply_in_order,
    large_values_and_commits_pass,
    rows_survive_closing,
    a_reopened_engine_has_its_rows,
    a_committed_batch_is_visible_whole,
    a_failed_assert_fails_its_batch_alone,
    tuple_ranges_page_both_ways,
    a_restart_gives_no_number_twice,
    migrations_run_once_and_in_order,
    empty_batches_cost_no_engine_write,
    closing_finishes_what_was_submitted,
    concurrent_writers_get_a_gap_free_order,
    no_view_shows_more_or_less_than_its_watermark,
    submitted_batches_build_on_each_other,
    then_runs_before_the_watermark_moves,
    bulk_batches_yield,
    fresh_ids_are_unique,
    an_engine_error_turns_the_store_read_only_until_it_heals,
    an_unknown_outcome_repeats_no_position,
    everyone_waiting_is_answered,
);
