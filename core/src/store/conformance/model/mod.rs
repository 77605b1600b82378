//! Random operations, compared with the model.

mod bytes;
mod operation;
mod pair;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::{CASE_DEADLINE, Harness, runtime};
use operation::{Operation, operations};
use pair::Pair;

/// Overrides how many sequences are tried.
const CASES: &str = "RMOM_MODEL_CASES";
/// Overrides the number that all of them follow from.
const SEED: &str = "RMOM_MODEL_SEED";
/// How often a sequence that failed is tried again, shorter or simpler.
const MAX_SHRINKS: u32 = 1_000;

/// Applies sequences of random operations to the store under test and to a
/// [`MemoryStore`](crate::store::MemoryStore), and compares every answer. The sequences are the same at each run, unless
/// the environment variable `RMOM_MODEL_SEED` holds another number; `RMOM_MODEL_CASES` overrides how many there are.
///
/// # Panics
/// If an answer differs; the text has the shortest sequence found.
pub fn matches_the_model<H: Harness>(harness: impl Future<Output = H>, cases: u32) {
    let seed = number(SEED).unwrap_or(1);
    let cases = number(CASES).map_or(cases, |cases| u32::try_from(cases).unwrap_or(u32::MAX));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: MAX_SHRINKS, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = runtime();
    let harness = runtime.block_on(harness);
    let result = runner.run(&operations(), |operations| {
        runtime.block_on(async {
            let compared = tokio::time::timeout(CASE_DEADLINE, compare(&harness, operations)).await;
            compared.unwrap_or_else(|_| Err(TestCaseError::fail(format!("not done after {CASE_DEADLINE:?}"))))
        })
    });
    runtime.block_on(async move { drop(harness) });
    if let Err(failure) = result {
        panic!("{SEED}={seed} {CASES}={cases}: {failure}");
    }
}

/// Applies the operations that `bytes` say, and looks at everything, also after the store was opened anew: for fuzzing.
/// Whatever the bytes, they are operations; the first few of them count, if there are many.
///
/// # Errors
/// The first difference.
pub async fn matches_the_model_on(harness: &dyn Harness, bytes: &[u8]) -> Result<(), String> {
    let mut operations = bytes::operations(bytes);
    operations.extend([Operation::LookAtEverything, Operation::Reopen]);
    compare(harness, operations).await.map_err(|error| error.to_string())
}

async fn compare(harness: &dyn Harness, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let mut pair = Pair::start(harness).await?;
    for operation in operations {
        pair.apply(&operation).await?;
    }
    pair.apply(&Operation::LookAtEverything).await
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}, which is no number")))
}
