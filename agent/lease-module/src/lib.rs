//! Keeps a server from taking writes beyond its lease, even when the agent beside it, or the server itself, was frozen meanwhile.
//!
//! Every command of clients and of scripts passes by a filter that compares the time since boot with a deadline. The agent moves the deadline
//! with each renewal of the lease (`AURORA.LEASE EXTEND`); when it has passed, a master answers `-LEASEEXPIRED` to what may change data.
//!
//! Invariants: the deadline begins in the past. A replica lets everything through, for its stream comes the same way. A term that ended (`FENCE`)
//! never moves the deadline again. Nothing here panics, blocks, or keeps a key or a data type of its own.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use api::{Api, Context, ERR, Filtered, OK, Text};
use clock::{Glance, now};
use commands::{Commands, Kind};

mod api;
mod clock;
mod commands;

/// Of the commands below: agent and module understand each other when theirs is the same.
const INTERFACE: u8 = 1;
/// The module's number as `MODULE LIST` shows it.
const VERSION: c_int = 1;
/// The agent's command. Clients' users lack it.
const LEASE: &CStr = c"aurora.lease";
/// What is refused becomes this command. Every user has it.
const EXPIRED: &CStr = c"aurora.expired";
const REFUSAL: &CStr =
    c"LEASEEXPIRED the lease of this master is over and nothing was done: ask for the master again and repeat it there";
/// No lease is longer: what would move the deadline further is a mistake.
const FURTHEST_NS: i64 = 120_000_000_000;

static API: OnceLock<Api> = OnceLock::new();
static COMMANDS: OnceLock<Commands> = OnceLock::new();
/// Nanoseconds since boot.
static DEADLINE: AtomicI64 = AtomicI64::new(0);
/// The term that may move the deadline, and every later one.
static TERM: AtomicU64 = AtomicU64::new(0);
static CLOCK: Glance = Glance::new();
static REFUSED: AtomicU64 = AtomicU64::new(0);
static REFUSES_READS: AtomicBool = AtomicBool::new(false);

/// Called by the server when it loads the module. Arguments: `reads serve|refuse`.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn RedisModule_OnLoad(context: *mut Context, argv: *mut *mut Text, argc: c_int) -> c_int {
    // SAFETY: the server hands over its context.
    let Some(api) = (unsafe { Api::bind(context, c"aurora-redis-lease", VERSION) }) else { return ERR };
    let api = API.get_or_init(|| api);
    // SAFETY: the server hands over as many arguments as it says.
    let refuses_reads = match unsafe { arguments(api, argv, argc) }.as_slice() {
        [] | [b"reads", b"serve"] => false,
        [b"reads", b"refuse"] => true,
        _ => return ERR,
    };
    // SAFETY: the context is the one of this call.
    let Some(commands) = (unsafe { api.call(context, c"COMMAND", list) }) else { return ERR };
    if !commands.is_plausible() {
        return ERR;
    }
    COMMANDS.get_or_init(|| commands);
    // While a script holds the server the lease goes on (a flag that servers before 7.0 lack).
    let flags = [
        c"admin fast deny-script allow-loading allow-stale no-monitor no-slowlog allow-busy",
        c"admin fast deny-script allow-loading allow-stale no-monitor no-slowlog",
    ];
    // SAFETY: the context is the one of this call.
    let ready = unsafe {
        flags.iter().any(|flags| api.create_command(context, LEASE, lease, flags))
            && api.create_command(context, EXPIRED, expired, c"fast allow-loading allow-stale")
            && api.register_filter(context, filter)
    };
    // A second load of the same file is refused here, for the commands are taken; until then it must not have changed anything.
    if !ready {
        return ERR;
    }
    REFUSES_READS.store(refuses_reads, Ordering::Relaxed);
    CLOCK.find_counter();
    OK
}

/// Called before the module is unloaded: it stays.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn RedisModule_OnUnload(_context: *mut Context) -> c_int {
    ERR
}

/// The answer to `COMMAND`: name, arity, flags, …, the seventh part the categories; from 7.0 on the tenth holds the subcommands in the same
/// form, named `name|subcommand`.
fn list(answer: api::Answer<'_>) -> Commands {
    let mut commands = Commands::default();
    for command in answer.parts() {
        let mut subcommands = command.part(9).into_iter().flat_map(|all| all.parts()).peekable();
        match subcommands.peek() {
            Some(_) => commands.add_container(name(command)),
            None => commands.add(name(command), words(command)),
        }
        subcommands.for_each(|one| commands.add(name(one), words(one)));
    }
    commands.finish(LEASE.to_bytes())
}

fn name<'a>(command: api::Answer<'a>) -> &'a [u8] {
    command.part(0).map_or(&[], |name| name.text())
}

fn words<'a>(command: api::Answer<'a>) -> impl Iterator<Item = &'a [u8]> {
    [2, 6].into_iter().filter_map(move |at| command.part(at)).flat_map(|words| words.parts()).map(|word| word.text())
}

/// # Safety
/// `argv` holds `argc` live strings of the server, which stay unchanged while the result is used.
unsafe fn arguments<'a>(api: &Api, argv: *mut *mut Text, argc: c_int) -> Vec<&'a [u8]> {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: as promised.
    (0..count).map(|at| unsafe { api.bytes(*argv.add(at)) }).collect()
}

/// Every command passes here before the server looks at it.
extern "C" fn filter(filtered: *mut Filtered) {
    if CLOCK.is_before(DEADLINE.load(Ordering::Relaxed)) {
        return;
    }
    let (Some(api), Some(commands)) = (API.get(), COMMANDS.get()) else { return };
    // SAFETY: the server hands it over, and its words are not used after a change of it.
    let kind = unsafe { commands.kind(api.argument(filtered, 0), api.argument(filtered, 1)) };
    let passes = match kind {
        Kind::Free => true,
        Kind::Read => !REFUSES_READS.load(Ordering::Relaxed),
        Kind::Write | Kind::Exec | Kind::Container => false,
    };
    if passes || api.is_replica() {
        return;
    }
    // SAFETY: the server hands it over. So below.
    if kind != Kind::Exec && unsafe { api.is_in_multi(filtered) } == Some(true) {
        // It is only queued; EXEC decides.
        return;
    }
    REFUSED.fetch_add(1, Ordering::Relaxed);
    match kind {
        // Another command would be queued. An argument that EXEC does not take makes the server give the transaction up (EXECABORT).
        Kind::Exec => unsafe { api.append(filtered, b"lease-expired") },
        _ => unsafe { api.rename(filtered, EXPIRED.to_bytes()) },
    }
}

extern "C" fn expired(context: *mut Context, _argv: *mut *mut Text, _argc: c_int) -> c_int {
    match API.get() {
        // SAFETY: the context is the one of this call.
        Some(api) => unsafe { api.reply_error(context, REFUSAL) },
        None => ERR,
    }
}

/// The agent's command:
/// - `EXTEND term nanoseconds`: writes are taken until that time since boot.
/// - `FENCE term`: none are, and neither this term nor an earlier one ever changes that.
/// - `STATUS`: interface, milliseconds left, commands refused so far, whether reads are refused.
extern "C" fn lease(context: *mut Context, argv: *mut *mut Text, argc: c_int) -> c_int {
    let Some(api) = API.get() else { return ERR };
    // SAFETY: the server hands over as many arguments as it says.
    let arguments = unsafe { arguments(api, argv, argc) };
    let done = match arguments.get(1..).unwrap_or_default() {
        // SAFETY: the context is the one of this call. So below.
        [b"STATUS"] => return unsafe { status(api, context) },
        [b"EXTEND", term, until] => match (number(term), number(until)) {
            (Some(term), Some(until)) => extend(term, until, now()),
            _ => Err(c"ERR AURORA.LEASE takes numbers"),
        },
        [b"FENCE", term] => match number(term) {
            Some(term) => {
                fence(term);
                Ok(())
            }
            None => Err(c"ERR AURORA.LEASE takes numbers"),
        },
        _ => Err(c"ERR AURORA.LEASE EXTEND term nanoseconds | FENCE term | STATUS"),
    };
    match done {
        Ok(()) => unsafe { api.reply_word(context, c"OK") },
        Err(why) => unsafe { api.reply_error(context, why) },
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn extend(term: u64, until: u64, now: i64) -> Result<(), &'static CStr> {
    let until = i64::try_from(until).ok().filter(|until| *until <= now.saturating_add(FURTHEST_NS));
    let until = until.ok_or(c"ERR AURORA.LEASE: no lease is that long; the time is in nanoseconds since boot")?;
    if term < TERM.load(Ordering::Relaxed) {
        return Err(c"STALE that term is over");
    }
    TERM.store(term, Ordering::Relaxed);
    DEADLINE.fetch_max(until, Ordering::Relaxed);
    Ok(())
}

fn fence(term: u64) {
    if term >= TERM.load(Ordering::Relaxed) {
        TERM.store(term.saturating_add(1), Ordering::Relaxed);
        DEADLINE.store(0, Ordering::Relaxed);
    }
}

/// # Safety
/// `context` is that of the command being carried out.
unsafe fn status(api: &Api, context: *mut Context) -> c_int {
    let left = DEADLINE.load(Ordering::Relaxed).saturating_sub(now()).max(0) / 1_000_000;
    let refused = i64::try_from(REFUSED.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    // SAFETY: as promised.
    unsafe {
        api.reply_array(context, 4);
        api.reply_number(context, INTERFACE.into());
        api.reply_number(context, left);
        api.reply_number(context, refused);
        api.reply_number(context, REFUSES_READS.load(Ordering::Relaxed).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_moves_with_its_term_and_never_after_its_fence() {
        let second = 1_000_000_000;
        assert_eq!(DEADLINE.load(Ordering::Relaxed), 0, "it begins in the past");
        extend(1, 5 * second, 1).unwrap();
        extend(1, 4 * second, 1).unwrap();
        assert_eq!(DEADLINE.load(Ordering::Relaxed), 5 * second as i64, "late words take nothing away");
        assert!(extend(1, 200 * second, 1).is_err());
        fence(1);
        assert_eq!(DEADLINE.load(Ordering::Relaxed), 0);
        assert!(extend(1, 6 * second, 1).is_err(), "that term is over");
        extend(2, 6 * second, 1).unwrap();
        fence(1);
        assert_eq!(DEADLINE.load(Ordering::Relaxed), 6 * second as i64, "a late fence of an earlier term means nothing");
    }
}
