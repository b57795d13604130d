// The version that the agent reports.
import { PACKAGE_VERSION } from '../version.js';

/** Answered by guest-info if nothing else is set (`--report-version`). */
export const REPORTED_VERSION = `${PACKAGE_VERSION} (fsfreeze-bridge)`;
