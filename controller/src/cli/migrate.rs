//! `migrate`: the data of a server outside of the cluster takes the place of the cluster's own. Begins it, cuts over, or calls it off.

use std::path::{Path, PathBuf};

use agent::api::{Address, Epoch, Origin};
use clap::Args;

use super::ask::confirm;
use super::door::Door;
use super::operations::{accepted, finish};
use super::table::{bytes, clean};
use super::{Context, Failure, owner};
use crate::view::{Ask, MigrationPlan};

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// The server whose data is wanted, a master; it goes on serving until the cut-over.
    #[arg(value_name = "HOST:PORT", required_unless_present_any = ["cut_over", "cancel"])]
    origin: Option<Address>,
    /// Its user; the default one when left out. It may replicate (PSYNC, REPLCONF), INFO, and CONFIG GET and SET.
    #[arg(long, value_name = "USER")]
    username: Option<String>,
    /// A file that only you can read (mode 0600) with the user's password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Show what would happen, and change nothing.
    #[arg(long, conflicts_with_all = ["cut_over", "cancel"])]
    dry_run: bool,
    /// Have the present data saved and replaced, for this epoch (the plan shows it).
    #[arg(long, value_name = "EPOCH", conflicts_with_all = ["cut_over", "cancel"])]
    consent: Option<Epoch>,
    /// The data that is followed leads from now on: saves the present data, has the other server refuse writes, and waits until it is through.
    #[arg(long, conflicts_with_all = ["origin", "username", "password_file", "cancel"])]
    cut_over: bool,
    /// End the migration under way; the present data stays.
    #[arg(long, conflicts_with_all = ["origin", "username", "password_file"])]
    cancel: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Return as soon as the controller has taken it on.
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(context: &Context, wanted: Migrate) -> Result<(), Failure> {
    let cluster = &context.place.cluster;
    match &wanted.origin {
        Some(address) => begin(context, &wanted, address.clone()).await,
        None if wanted.cut_over => {
            confirm(&format!("Save the data of {cluster}, and replace it by what is followed?"), wanted.yes)?;
            let door = Door::find(context).await?;
            let reply = accepted(door.ask(&Ask::CutOver { owner: owner() }).await?)?;
            finish(context, &reply, wanted.no_wait).await
        }
        None => {
            let door = Door::find(context).await?;
            let reply = accepted(door.ask(&Ask::CancelMigration { owner: owner() }).await?)?;
            finish(context, &reply, wanted.no_wait).await
        }
    }
}

async fn begin(context: &Context, wanted: &Migrate, address: Address) -> Result<(), Failure> {
    let mut origin = Origin { address, username: wanted.username.clone(), password: None };
    if let Some(file) = &wanted.password_file {
        let password = read_password(file)?;
        let secret = context.place.secret.as_ref().ok_or_else(|| {
            Failure::Usage("a password travels sealed by the cluster's secret: name that by --secret-file".into())
        })?;
        origin.password = Some(secret.seal(&origin.purpose(), &password));
    }
    let ask =
        |dry_run, consent_epoch| Ask::Migrate { owner: owner(), origin: origin.clone(), consent_epoch, dry_run, examined: None };
    let door = Door::find(context).await?;
    let shown = accepted(door.ask(&ask(true, None)).await?)?;
    let Some(plan) = shown.migration.as_deref() else {
        return Err(Failure::Failed("the controller shows no plan: it is of an older version".into()));
    };
    let text = render(&context.place.cluster, plan);
    let Some(consent) = wanted.consent.filter(|_| !wanted.dry_run) else {
        context.print(plan, || text)?;
        return match (plan.objections.is_empty(), wanted.dry_run) {
            (false, _) => Err(Failure::Failed(format!("it would be refused: {}", clean(&plan.objections.join("; "))))),
            (true, true) => Ok(()),
            (true, false) => Err(Failure::Failed(format!("nothing was done. To begin: {}", plan.command))),
        };
    };
    eprintln!("{text}");
    confirm(&format!("Begin to migrate {} to the data of {}?", context.place.cluster, plan.origin), wanted.yes)?;
    let reply = accepted(door.ask(&ask(false, Some(consent))).await?)?;
    // It goes on until the cut-over: nobody waits for that here.
    context.print(&reply, || clean(&reply.message))
}

/// The password in a file that nobody else can read.
fn read_password(file: &Path) -> Result<String, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let shown = file.display();
    let cannot = |why: String| Failure::Usage(format!("--password-file {shown}: {why}"));
    let mode = std::fs::metadata(file).map_err(|e| cannot(e.to_string()))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(cannot(format!("it has mode {mode:04o}, so others can read it; run chmod 0600 {shown}")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| cannot(e.to_string()))?;
    let password = text.trim_end_matches(['\n', '\r']);
    match password.is_empty() || password.len() > 4096 || password.chars().any(char::is_control) {
        true => Err(cannot("it must hold one line of 1 to 4096 bytes, the password".into())),
        false => Ok(password.to_owned()),
    }
}

/// The plan for people.
fn render(cluster: &str, plan: &MigrationPlan) -> String {
    let found = &plan.examined;
    let mut text = format!("{cluster} serves, epoch {}: its data would be replaced\n", plan.epoch);
    text += &match found.version.is_empty() {
        true => format!("  origin:   {}\n", plan.origin),
        false => {
            let memory = bytes(Some(found.used_memory));
            format!("  origin:   {}, version {}, {} keys, {memory} of memory\n", plan.origin, found.version, found.keys)
        }
    };
    text += &format!("  present:  {} keys, master is instance {}\n", plan.present_keys, plan.master);
    for (n, step) in plan.steps.iter().enumerate() {
        text += &format!("  {}. {step}\n", n + 1);
    }
    for objection in &plan.objections {
        text += &format!("  against it: {objection}\n");
    }
    if plan.objections.is_empty() {
        text += &format!("  command:  {}\n", plan.command);
    }
    text.lines().map(|line| clean(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_what_is_replaced_and_what_speaks_against_it() {
        let mut plan = MigrationPlan {
            origin: "10.0.0.9:6379".parse().unwrap(),
            examined: agent::api::Examined { version: "7.0.15".into(), keys: 5, ..Default::default() },
            epoch: 7,
            master: 1,
            present_keys: 12,
            follower: 2,
            others: vec![0, 1],
            steps: vec!["it follows".into()],
            objections: Vec::new(),
            command: "aurora-redis migrate 10.0.0.9:6379 --consent 7".into(),
        };
        let text = render("www/prod/cache", &plan);
        for part in
            ["epoch 7", "10.0.0.9:6379, version 7.0.15, 5 keys", "12 keys, master is instance 1", "1. it follows", "command:"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        plan.objections.push("too\u{1b}new".into());
        let text = render("www/prod/cache", &plan);
        assert!(text.contains("against it: too new") && !text.contains("command:"), "{text}");
    }

    #[test]
    fn a_password_is_read_from_a_file_that_is_ones_own() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("password-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("p");
        let told = |text: &str, mode| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            match read_password(&file) {
                Ok(password) => password,
                Err(Failure::Usage(why) | Failure::Failed(why)) => why,
            }
        };
        assert_eq!(told("s3cret word\n", 0o600), "s3cret word");
        assert!(told("s3cret\n", 0o640).contains("chmod 0600"));
        assert!(told("\n", 0o600).contains("one line"));
        assert!(told("a\nb\n", 0o600).contains("one line"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
