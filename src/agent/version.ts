// What the agent says of itself. Constants, not files: the single executable reads nothing at run time.
/** Ours, as in package.json (a test compares them). */
export const agentVersion = '0.1.0';

/** What guest-info answers if nothing else is set (`--report-version`). */
export const reportedVersion = `${agentVersion} (fsfreeze-bridge)`;
