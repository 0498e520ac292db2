//! How RocksDB is set up: one memory budget, and each keyspace tuned for its purpose.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options, WriteBufferManager,
};
use vatra_store::Keyspace;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds block cache and memtables together, in bytes. Values below 8 MiB count as 8 MiB.
    pub memory_budget_bytes: u64,
}

impl Default for Settings {
    /// 128 MiB.
    fn default() -> Self {
        Self {
            memory_budget_bytes: 128 << 20,
        }
    }
}

/// The least that RocksDB works well with.
const LEAST_BUDGET: usize = 8 << 20;
/// Above this, larger memtables only make recovery slower.
const LARGEST_MEMTABLE: usize = 32 << 20;
/// How much log a start may have to replay.
const LARGEST_LOG_TOTAL: u64 = 64 << 20;

/// The memory that all instances of one engine share; it outlives a reopening.
pub(crate) struct Memory {
    cache: Cache,
    memtables: WriteBufferManager,
    budget: usize,
}

impl Memory {
    pub(crate) fn new(settings: &Settings) -> Self {
        let budget = usize::try_from(settings.memory_budget_bytes)
            .unwrap_or(usize::MAX)
            .max(LEAST_BUDGET);
        let cache = Cache::new_lru_cache(budget);
        // Memtables are charged to the cache: what they do not use, blocks may. No stall: a flush starts instead.
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
            budget / 4,
            false,
            cache.clone(),
        );
        Self {
            cache,
            memtables,
            budget,
        }
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    pub(crate) fn memtable_bytes(&self) -> usize {
        self.memtables.get_usage()
    }
}

/// The options of the whole database.
pub(crate) fn database(memory: &Memory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&memory.memtables);
    options.set_max_total_wal_size(LARGEST_LOG_TOTAL);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);

    // Damage is an error, everywhere. The last record of the log may be incomplete, which is what a power cut leaves of
    // a write that was never acknowledged; anything else that is wrong with the log stops the start.
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A log that is missing or shorter than it was when the next one began is noticed.
    options.set_track_and_verify_wals_in_manifest(true);

    // RocksDB's own diary, beside the data: small, and only what is wrong.
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options
}

/// One column family per keyspace, and RocksDB's own `default`, which stays empty.
pub(crate) fn families(memory: &Memory) -> Vec<ColumnFamilyDescriptor> {
    let mut families = vec![ColumnFamilyDescriptor::new("default", family(memory, None))];
    for keyspace in Keyspace::ALL {
        families.push(ColumnFamilyDescriptor::new(
            keyspace.name(),
            family(memory, Some(keyspace)),
        ));
    }
    families
}

fn family(memory: &Memory, keyspace: Option<Keyspace>) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    // Indexes and filters count against the budget too.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    let mut options = Options::default();
    options.set_write_buffer_manager(&memory.memtables);
    options.set_write_buffer_size((memory.budget / 8).min(LARGEST_MEMTABLE));
    options.set_level_compaction_dynamic_level_bytes(true);
    match keyspace {
        Some(Keyspace::Index) => {
            // Most lookups are by exact key and many find nothing (is this id known?): filters spare the disk.
            table.set_bloom_filter(10.0, false);
            table.set_optimize_filters_for_memory(true);
            table.set_block_size(4 << 10);
            options.set_compression_type(DBCompressionType::Lz4);
        }
        Some(Keyspace::Bulk) => {
            // JSON compresses well in large blocks.
            table.set_block_size(16 << 10);
            options.set_compression_type(DBCompressionType::Zstd);
        }
        Some(Keyspace::Stream) => {
            table.set_block_size(8 << 10);
            options.set_compression_type(DBCompressionType::Lz4);
        }
        None => {}
    }
    options.set_block_based_table_factory(&table);
    options
}
