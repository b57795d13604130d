// What the agent says of itself.
import { PACKAGE_VERSION } from '../version.js';

/** What guest-info answers if nothing else is set (`--report-version`). */
export const REPORTED_VERSION = `${PACKAGE_VERSION} (fsfreeze-bridge)`;
