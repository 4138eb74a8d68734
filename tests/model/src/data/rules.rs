//! The rules of membership, of asking and of choosing, each of which can be taken away.

crate::protocol::rules! {
    /// A rule that keeps the promises of `properties.rs`. Its documentation says what it demands.
    pub enum Rule {
        /// Only listed members replicate.
        OnlyMembersReplicate,
        /// The master admits a member only after a committed renewal against a record that lists it.
        AdmitAfterRenewal,
        /// A member is removed only after the master has cut it and confirmed that.
        CutBeforeRemoval,
        /// The removal is marked first; a marked member is never admitted again.
        MarkBeforeRemoval,
        /// The confirmation counts for the mark that the master renewed against, not for an earlier one of the same member.
        ConfirmationForMark,
        /// A member is removed only when enough others hold what was written up to the cut.
        OthersCaughtUp,
        /// As many members as must confirm a write stay.
        EnoughMembersStay,
        /// A member is one run of one server: what restarted is somebody else.
        MemberIsOneRun,
        /// Our own readers of the replication stream confirm nothing.
        ReadersConfirmNothing,
        /// A survivor is cut from the old master before its answer counts.
        CutThenAsk,
        /// So many members must have answered that one of them holds any confirmed write.
        Quorum,
        /// The quorum is reckoned with the fewest confirmations in force since all members last held everything.
        FewestConfirmations,
        /// Members that hold everything raise that number only if they are as many.
        HeldByEnough,
        /// A copy that is being loaded is no answer.
        OnlyCompleteCopies,
        /// An answer ends with the process that gave it.
        AnswerEndsWithProcess,
        /// A server that is still loading a copy is not accounted for.
        LoadingIsAwaited,
        /// Only a copy of the record's history leads, one that forked off it does not.
        OneHistory,
        /// A copy that forked counts with its part before the fork: the winner reaches that.
        ForkedCopiesCount,
        /// The winner reaches the longest complete copy, fit to lead or not.
        LongestCopyLeads,
        /// The assignment holds for one run of the winner's server.
        AssignmentForOneRun,
        /// The list of a new epoch is the old one, with the deposed master, without the winner.
        ListIsCarriedOn,
        /// In a planned change the winner reaches what the old master holds after its fence.
        PlannedAfterFence,
        /// The deposed master's own answer is a whole quorum.
        MasterIsQuorum,
        /// With everybody accounted for the longest copy leads.
        AllAccountedFor,
    }
}
