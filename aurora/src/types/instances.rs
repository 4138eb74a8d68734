//! A set of instances that is never empty.

use std::collections::BTreeSet;

/// Instance ids of a job, at least one. The scheduler reads "no instances" as "all of them", so killing and restarting ask
/// for this type and the whole job cannot be meant by accident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSet(Vec<i32>);

impl InstanceSet {
    /// The set of `ids`, sorted, duplicates removed. `None` when `ids` is empty or holds a number beyond the API's i32.
    pub fn new(ids: impl IntoIterator<Item = u32>) -> Option<InstanceSet> {
        let ids: BTreeSet<i32> = ids.into_iter().map(i32::try_from).collect::<Result<_, _>>().ok()?;
        (!ids.is_empty()).then(|| InstanceSet(ids.into_iter().collect()))
    }

    /// The set of one instance; `None` beyond the API's i32.
    pub fn one(id: u32) -> Option<InstanceSet> {
        InstanceSet::new([id])
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[i32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sorted_and_without_duplicates() {
        assert_eq!(InstanceSet::new([3, 1, 3]).map(|set| set.ids().to_vec()), Some(vec![1, 3]));
        assert_eq!(InstanceSet::one(7).map(|set| set.ids().to_vec()), Some(vec![7]));
    }

    #[test]
    fn refuses_none_and_what_the_api_cannot_say() {
        assert_eq!(InstanceSet::new([]), None);
        assert_eq!(InstanceSet::new([1, u32::MAX]), None);
    }
}
