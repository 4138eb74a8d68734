//! The server of an earlier agent in the same sandbox: ended if it still runs, and its death reported.
//!
//! Invariant: no server of ours ever runs beside another one of ours, and a death is reported only on proof.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::api::{Death, Host};
use crate::clock::unix_ms;
use crate::memory::{Notebook, ServerNote};
use crate::process;

/// Longest wait for a server that is being killed.
const PROOF_TIMEOUT: Duration = Duration::from_secs(30);

/// Settles what became of the server noted in the memory. The error says why no server may be started here.
pub(crate) fn settle(notebook: &Notebook, here: &Host) -> Result<(), String> {
    let Some(note) = notebook.get().server else { return Ok(()) };
    let proof = end(&note, here)?;
    tracing::warn!(pid = note.pid, run_id = note.run_id, proof, "the server of an earlier agent is dead");
    let noted = notebook.change(|memory| {
        memory.note_death(Death { run_id: note.run_id.clone(), proof: proof.into(), at_ms: unix_ms() });
        memory.server = None;
    });
    noted.map_err(|error| crate::causes::chain(&error))
}

fn end(note: &ServerNote, here: &Host) -> Result<&'static str, String> {
    if note.boot_id != here.boot_id {
        return Ok("other boot");
    }
    if note.pid_ns != here.pid_ns {
        let (then, now) = (&note.pid_ns, &here.pid_ns);
        return Err(format!(
            "the earlier server (pid {}) ran in pid namespace {then}, this is {now}: its end cannot be seen",
            note.pid
        ));
    }
    if !is_there(note)? {
        return Ok("process gone");
    }
    let pid = i32::try_from(note.pid).ok().and_then(Pid::from_raw).ok_or("the earlier server's pid is none")?;
    // The start time was compared just now: the pid is still its own.
    kill_process(pid, Signal::KILL).map_err(|e| format!("the earlier server (pid {}) cannot be killed: {e}", note.pid))?;
    let deadline = Instant::now() + PROOF_TIMEOUT;
    while is_there(note)? {
        if Instant::now() > deadline {
            return Err(format!("the earlier server (pid {}) does not die", note.pid));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok("killed by the next agent")
}

fn is_there(note: &ServerNote) -> Result<bool, String> {
    let stat = process::stat(note.pid).map_err(|e| format!("/proc/{}/stat: {e}", note.pid))?;
    Ok(stat.is_some_and(|stat| stat.start_ticks == note.start_ticks && !stat.is_dead()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notebook(note: ServerNote) -> (std::path::PathBuf, Notebook) {
        let dir = std::env::temp_dir().join(format!("predecessor-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let (book, _) = Notebook::open(&dir.join("agent.memory"), "t").unwrap();
        book.change(|memory| memory.server = Some(note)).unwrap();
        (dir, book)
    }

    fn here() -> Host {
        process::host("h", "n")
    }

    fn note(pid: u32, start_ticks: u64) -> ServerNote {
        ServerNote { pid, start_ticks, boot_id: here().boot_id, pid_ns: here().pid_ns, run_id: "r".into() }
    }

    #[test]
    fn a_server_that_still_runs_is_killed_and_reported() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start = process::stat(child.id()).unwrap().unwrap().start_ticks;
        let (dir, book) = notebook(note(child.id(), start));
        settle(&book, &here()).unwrap();
        assert_eq!(book.get().server, None);
        assert_eq!(
            (book.get().deaths[0].run_id.as_str(), book.get().deaths[0].proof.as_str()),
            ("r", "killed by the next agent")
        );
        child.wait().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_pid_used_again_is_left_alone() {
        let (pid, start) = process::myself();
        let (dir, book) = notebook(note(pid, start + 1));
        settle(&book, &here()).unwrap();
        assert_eq!(book.get().deaths[0].proof, "process gone");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn another_boot_is_proof_and_another_namespace_is_not() {
        let (pid, start) = process::myself();
        let (dir, book) = notebook(ServerNote { boot_id: "other".into(), ..note(pid, start) });
        settle(&book, &here()).unwrap();
        assert_eq!(book.get().deaths[0].proof, "other boot");
        std::fs::remove_dir_all(&dir).unwrap();
        let (dir, book) = notebook(ServerNote { pid_ns: "other".into(), ..note(pid, start) });
        assert!(settle(&book, &here()).unwrap_err().contains("namespace"));
        assert!(book.get().deaths.is_empty());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
