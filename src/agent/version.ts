// What the agent says of itself.
import { packageVersion } from '../version.js';

/** What guest-info answers if nothing else is set (`--report-version`). */
export const reportedVersion = `${packageVersion} (fsfreeze-bridge)`;
