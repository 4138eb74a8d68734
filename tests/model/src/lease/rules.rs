//! The rules of the lease, of evidence and of failsafe, each of which can be taken away.

crate::protocol::rules! {
    /// A rule that keeps the promises of `properties.rs`. Its documentation says what it demands.
    pub enum Rule {
        /// The record is changed only on the version that the controller decided on.
        CompareAndSet,
        /// Only a committed renewal proves that the record still stands; reading the record does not.
        RenewalCommits,
        /// Renewals of one agent take effect in the order sent: one that was given up never commits after a later one.
        RenewalsInOrder,
        /// Wherever somebody waits for another's clock, it waits a margin for drift as well.
        DriftMargin,
        /// Writes are stopped before the lease ends, so that at its end the stop is proven.
        StopBeforeEnd,
        /// Writes are resumed only while a lease runs, whoever asks for it.
        ResumeUnderLease,
        /// A winner opens only while its lease runs.
        OpenUnderLease,
        /// A winner commits its first renewal before it opens.
        RenewBeforeOpening,
        /// Whom the master would ask in failsafe stands in the lease, and only those are witnesses.
        WitnessesFromLease,
        /// The deposing commit checks that nobody renewed since the lease was read: the list of witnesses is the last one.
        PinWitnesses,
        /// The same, for who holds the lease: whether the named master ever took office.
        PinHolder,
        /// The same, for when it was first seen: the wait counts from the last renewal, not from one before.
        PinCount,
        /// The end of a lease is evidence only together with a witness.
        Witness,
        /// A witness speaks only when no promise of its own runs.
        WitnessFreeOfPromises,
        /// Evidence holds for one master in one epoch: the next deposing clears it.
        EvidenceCleared,
        /// For a named master that never took office, the evidence about its predecessor is carried on, if there was any.
        EvidenceCarried,
        /// A named master that never took office needs no evidence of its own.
        NeverInOffice,
        /// A change of mind after the deposing commit is a new epoch.
        UndoIsNewEpoch,
        /// Without ZooKeeper the lease runs on only when *every* member asked has promised.
        EveryMemberPromises,
        /// Asked are the members of all renewals sent since the last that is known to be committed, and of that one.
        AskUnion,
        /// A promise is refused to a master of an epoch lower than one's own.
        PromiseForKnownEpoch,
        /// A promise counts for the round it was asked in.
        PromiseForRound,
        /// An agent that starts with data behaves as if it had just promised.
        PromiseSurvivesRestart,
        /// The highest epoch seen is kept across restarts.
        EpochSurvivesRestart,
        /// Failsafe ends a fixed time after the last committed renewal.
        FailsafeEnds,
        /// Every renewal checks the generation of the record too.
        GenerationChecked,
        /// A record made anew promotes nobody before the longest failsafe and a lease have passed.
        RemadeRecordWaits,
        /// A record made anew adopts only a master that writes.
        AdoptOnlyWriter,
    }
}
