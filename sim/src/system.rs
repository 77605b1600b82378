//! Time and chance, at the place where they come into a process.
//!
//! Production code takes neither from the system, but libraries do: std's hash maps their keys, `uuid` and `rand` their
//! random bits, hyper its `Date` header. All of it comes from two functions of the C library, `getrandom` and
//! `clock_gettime`, and a program may define those itself. Here they are: on a thread that runs a simulation they answer
//! from the seed and from simulated time, on any other they are what they were.
//!
//! This crate is linked into tests and into `rmom-sim`, never into what runs in production.
#![allow(unsafe_code, reason = "functions of the C library are defined here; each block says why it is sound")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{TryRngCore as _, rngs::OsRng};

use crate::EPOCH_MILLIS;

/// What the monotonic clock shows when a simulation starts: nothing may rely on its being small.
const MONOTONIC_START: Duration = Duration::from_secs(1_000);

// Without destructors, so that these functions can be called at any time of a thread's life.
thread_local! {
    /// The state of the generator; none on threads without a simulation.
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
    /// Simulated time since the start; none on threads without a simulation.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
    /// By how much the wall clock of the host that runs is wrong.
    static ERROR_MILLIS: Cell<i64> = const { Cell::new(0) };
}

thread_local! {
    /// By how much each host's wall clock is wrong.
    static ERRORS: RefCell<BTreeMap<String, i64>> = const { RefCell::new(BTreeMap::new()) };
}

/// This thread runs a simulation from now on, to its own end.
///
/// # Panics
/// If the program does not use the functions that are defined here.
pub(crate) fn enter() {
    CHANCE.set(Some(0));
    NOW.set(Some(Duration::ZERO));
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // A linker takes from a library only what something refers to.
        std::hint::black_box((getrandom as *const (), clock_gettime as *const ()));
        let (mine, used) = (split_mix(&mut 0), OsRng.try_next_u64().ok());
        let start = UNIX_EPOCH + Duration::from_millis(EPOCH_MILLIS);
        assert!(
            used == Some(mine) && SystemTime::now() == start,
            "time and chance are not under control: this program does not use the functions `getrandom` and \
             `clock_gettime` that rmom-sim defines; is something else defining them, or is it linked in an unusual way?"
        );
    }
}

/// Chance follows from this seed from now on, if this thread runs a simulation.
pub(crate) fn seed(seed: u64) {
    CHANCE.set(CHANCE.get().map(|_| seed));
}

/// Simulated time since the start: of the host whose turn it is, or between two ticks, where the hand of fate acts.
pub(crate) fn elapsed() -> Duration {
    turmoil::sim_elapsed().or_else(|| NOW.get()).unwrap_or_default()
}

/// Sets the clocks, if this thread runs a simulation. No host runs.
pub(crate) fn set_now(elapsed: Duration) {
    NOW.set(NOW.get().map(|_| elapsed));
    ERROR_MILLIS.set(0);
}

/// It is this host's turn.
pub(crate) fn set_host(host: &str) {
    ERROR_MILLIS.set(ERRORS.with_borrow(|errors| errors.get(host).copied().unwrap_or(0)));
}

/// A host's wall clock is set forward, or back.
pub(crate) fn jump(host: &str, by_millis: i64) {
    ERRORS.with_borrow_mut(|errors| *errors.entry(host.to_owned()).or_default() += by_millis);
}

/// The next number of the generator SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// What a clock shows in a simulation; none if there is none, or it is no clock that tells time.
fn reading(clock: libc::clockid_t) -> Option<Duration> {
    let elapsed = NOW.try_with(Cell::get).ok().flatten()?;
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            let error = ERROR_MILLIS.try_with(Cell::get).unwrap_or(0);
            Some(Duration::from_millis(EPOCH_MILLIS.saturating_add_signed(error)) + elapsed)
        }
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            Some(MONOTONIC_START + elapsed)
        }
        _ => None,
    }
}

/// As `getrandom(2)`.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes, as for the function that this replaces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let Some(mut state) = CHANCE.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's promise about `buffer` is handed on.
        let written = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return written as libc::ssize_t;
    };
    // SAFETY: the caller promises that so many bytes can be written there, and bytes have no alignment.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
    }
    CHANCE.set(Some(state));
    length.cast_signed()
}

/// As `clock_gettime(2)`.
///
/// # Safety
/// `time` is valid for a write, as for the function that this replaces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let Some(reading) = reading(clock) else {
        // SAFETY: the caller's promise about `time` is handed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    };
    // SAFETY: the caller promises that it can be written there.
    unsafe {
        (*time).tv_sec = reading.as_secs().cast_signed();
        (*time).tv_nsec = libc::c_long::from(reading.subsec_nanos());
    }
    0
}
