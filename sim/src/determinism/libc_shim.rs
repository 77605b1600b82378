//! Time and randomness at the point where they enter a process.
//!
//! Production code takes neither from the system, but libraries do: std's hash maps their keys, `uuid` and `rand` their
//! random bits, hyper its `Date` header. All of it comes from two functions of the C library, `getrandom` and
//! `clock_gettime`, and a program may define those itself. This module defines them: on a thread that runs a simulation they
//! answer from the seed and from simulated time, on any other thread they behave as usual.
//!
//! This crate is linked into tests and into `rmom-sim`, never into production programs.
#![allow(unsafe_code, reason = "functions of the C library are defined here; each block says why it is sound")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{TryRngCore as _, rngs::OsRng};

use super::EPOCH_MILLIS;

/// The monotonic clock's reading when a simulation starts, so that no code relies on a small one.
const MONOTONIC_START: Duration = Duration::from_secs(1_000);

// Without destructors, so that these functions can be called at any time of a thread's life.
thread_local! {
    /// The state of the generator, or `None` on threads without a simulation.
    static RANDOM_STATE: Cell<Option<u64>> = const { Cell::new(None) };
    /// Simulated time since the start, or `None` on threads without a simulation.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
    /// The error of the current host's wall clock.
    static ERROR_MILLIS: Cell<i64> = const { Cell::new(0) };
}

thread_local! {
    /// The error of each host's wall clock.
    static ERRORS: RefCell<BTreeMap<String, i64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Marks this thread as running a simulation, until the thread ends.
///
/// # Panics
/// If the program does not use the functions that are defined here.
pub(crate) fn enter() {
    RANDOM_STATE.set(Some(0));
    NOW.set(Some(Duration::ZERO));
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // A linker takes only referenced items from a library.
        std::hint::black_box((getrandom as *const (), clock_gettime as *const ()));
        let (mine, used) = (split_mix(&mut 0), OsRng.try_next_u64().ok());
        let start = UNIX_EPOCH + Duration::from_millis(EPOCH_MILLIS);
        assert!(
            used == Some(mine) && SystemTime::now() == start,
            "time and randomness are not under control: this program does not use the functions `getrandom` and \
             `clock_gettime` that rmom-sim defines; is something else defining them, or is it linked in an unusual way?"
        );
    }
}

/// Seeds the randomness of this thread, if it runs a simulation.
pub(crate) fn seed(seed: u64) {
    RANDOM_STATE.set(RANDOM_STATE.get().map(|_| seed));
}

/// Simulated time since the start: that of the current host, or between two ticks that of the simulation.
pub(crate) fn elapsed() -> Duration {
    turmoil::sim_elapsed().or_else(|| NOW.get()).unwrap_or_default()
}

/// Sets the clocks between two ticks, if this thread runs a simulation.
pub(crate) fn set_now(elapsed: Duration) {
    NOW.set(NOW.get().map(|_| elapsed));
    ERROR_MILLIS.set(0);
}

/// Begins this host's turn.
pub(crate) fn set_host(host: &str) {
    ERROR_MILLIS.set(ERRORS.with_borrow(|errors| errors.get(host).copied().unwrap_or(0)));
}

/// Sets a host's wall clock forward, or back.
pub(crate) fn shift_clock(host: &str, by_millis: i64) {
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

/// A clock's reading in a simulation, or `None` outside of one and for clocks that do not tell time.
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

/// Replaces `getrandom(2)`.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes, as for the function that this replaces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let Some(mut state) = RANDOM_STATE.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's promise about `buffer` is passed on.
        let written = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return written as libc::ssize_t;
    };
    // SAFETY: the caller promises that `length` bytes can be written there, and bytes need no alignment.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
    }
    RANDOM_STATE.set(Some(state));
    length.cast_signed()
}

/// Replaces `clock_gettime(2)`.
///
/// # Safety
/// `time` is valid for a write, as for the function that this replaces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let Some(reading) = reading(clock) else {
        // SAFETY: the caller's promise about `time` is passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    };
    // SAFETY: the caller promises that `time` can be written.
    unsafe {
        (*time).tv_sec = reading.as_secs().cast_signed();
        (*time).tv_nsec = libc::c_long::from(reading.subsec_nanos());
    }
    0
}
