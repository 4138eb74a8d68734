//! What `startJobUpdate` refuses before it looks at the job, in the scheduler's order and words. Pure.

use aurora::types::{
    BatchStrategy, JobUpdateRequest, JobUpdateSettings, JobUpdateStrategy, Metadata, TaskConfig, VariableBatchStrategy,
};

use super::super::config;
use super::super::thermos::Job;

/// Most failures that all instances together may be allowed.
const MAX_FAILURES: i64 = 20_000;

/// A request that passed.
pub struct Accepted {
    /// As it will be stored.
    pub config: TaskConfig,
    /// What its executor runs.
    pub job: Job,
    /// Instances afterwards.
    pub count: i32,
    /// As they will be stored.
    pub settings: JobUpdateSettings,
    /// Labels.
    pub metadata: Vec<Metadata>,
}

/// Checks and completes a request. The error is the text for INVALID_REQUEST.
pub fn accept(request: JobUpdateRequest) -> Result<Accepted, String> {
    let JobUpdateRequest { task_config, instance_count, settings, metadata } = request;
    let refuse = |bad: bool, text: &str| if bad { Err(text.to_owned()) } else { Ok(()) };
    refuse(!task_config.is_service, "Updates are not supported for non-service tasks.")?;
    let settings = complete(settings);
    check_strategy(settings.update_strategy.as_ref())?;
    refuse(settings.max_per_instance_failures < 0, "maxPerInstanceFailures must be non-negative.")?;
    refuse(settings.max_failed_instances < 0, "maxFailedInstances must be non-negative.")?;
    let failures = i64::from(settings.max_per_instance_failures) * i64::from(instance_count);
    refuse(
        failures > MAX_FAILURES,
        "Your update allows too many failures to occur, consider decreasing the per-instance failures or maxFailedInstances.",
    )?;
    refuse(settings.min_wait_in_instance_running_ms < 0, "minWaitInInstanceRunningMs must be non-negative.")?;
    refuse(settings.block_if_no_pulses_after_ms < Some(0), "blockIfNoPulsesAfterMs must be positive.")?;
    refuse(
        settings.sla_aware == Some(true) && task_config.sla_policy.is_none(),
        "slaAware is true, but no task slaPolicy is specified.",
    )?;
    let (config, job) = config::accept_task(task_config, instance_count)?;
    Ok(Accepted { config, job, count: instance_count, settings, metadata: metadata.unwrap_or_default() })
}

/// Fills in what a request may leave out.
fn complete(mut settings: JobUpdateSettings) -> JobUpdateSettings {
    settings.block_if_no_pulses_after_ms.get_or_insert(0);
    settings.sla_aware.get_or_insert(false);
    let size = settings.update_group_size;
    let old = match settings.wait_for_batch_completion {
        true => JobUpdateStrategy::Batch(BatchStrategy { group_size: size, autopause_after_batch: false }),
        false => JobUpdateStrategy::Queue(size),
    };
    settings.update_strategy.get_or_insert(old);
    settings
}

fn check_strategy(strategy: Option<&JobUpdateStrategy>) -> Result<(), String> {
    let instances = match strategy {
        Some(JobUpdateStrategy::Queue(size)) => i64::from(*size),
        Some(JobUpdateStrategy::Batch(batch)) => i64::from(batch.group_size),
        Some(JobUpdateStrategy::VariableBatch(VariableBatchStrategy { group_sizes, .. })) => {
            if group_sizes.iter().any(|size| *size <= 0) {
                return Err("All update group sizes must be positive.".to_owned());
            }
            group_sizes.iter().map(|size| i64::from(*size)).sum()
        }
        Some(JobUpdateStrategy::Unknown(_)) | None => return Err("Update strategy provided is unknown.".to_owned()),
    };
    if instances > 0 { Ok(()) } else { Err("Update results in no instance being modified.".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut JobUpdateRequest)) -> String {
        let mut request = JobUpdateRequest {
            task_config: TaskConfig { is_service: true, ..TaskConfig::default() },
            instance_count: 3,
            settings: JobUpdateSettings::one_by_one(),
            metadata: None,
        };
        change(&mut request);
        accept(request).err().unwrap_or_default()
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        assert!(refused(|r| r.task_config.is_service = false).contains("non-service"));
        assert!(refused(|r| r.settings.update_strategy = Some(JobUpdateStrategy::Queue(0))).contains("no instance"));
        let steps = |sizes: &[i32]| {
            let batches = VariableBatchStrategy { group_sizes: sizes.to_vec(), autopause_after_batch: false };
            refused(|r| r.settings.update_strategy = Some(JobUpdateStrategy::VariableBatch(batches)))
        };
        assert!(steps(&[1, 0]).contains("must be positive"));
        assert!(steps(&[]).contains("no instance"));
        assert!(refused(|r| r.settings.update_strategy = Some(JobUpdateStrategy::Unknown(9))).contains("unknown"));
        assert!(refused(|r| r.settings.max_per_instance_failures = -1).contains("maxPerInstanceFailures"));
        assert!(refused(|r| r.settings.max_failed_instances = -1).contains("maxFailedInstances"));
        assert!(refused(|r| r.settings.max_per_instance_failures = i32::MAX).contains("too many failures"));
        assert!(refused(|r| r.settings.min_wait_in_instance_running_ms = -1).contains("minWaitInInstanceRunningMs"));
        assert!(refused(|r| r.settings.block_if_no_pulses_after_ms = Some(-1)).contains("blockIfNoPulsesAfterMs"));
        assert!(refused(|r| r.settings.sla_aware = Some(true)).contains("slaPolicy"));
        assert!(refused(|_| ()).contains("illegal characters"), "only now the configuration is looked at");
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let old =
            |wait| JobUpdateSettings { update_group_size: 2, wait_for_batch_completion: wait, ..JobUpdateSettings::default() };
        assert_eq!(complete(old(false)).update_strategy, Some(JobUpdateStrategy::Queue(2)));
        let batch = BatchStrategy { group_size: 2, autopause_after_batch: false };
        assert_eq!(complete(old(true)).update_strategy, Some(JobUpdateStrategy::Batch(batch)));
        assert_eq!(complete(old(true)).block_if_no_pulses_after_ms, Some(0));
    }
}
