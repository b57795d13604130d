// Bounds a guest's answers. The guest may be hostile, and its report is kept on the host's disk for as long as the set:
// one beyond the bound is no evidence. Single sentences are shortened by clip.ts.
import type { FreezeReport } from '../../consistency.js';
import { UnreachableError } from '../../errors.js';

/** A report with thousands of filesystems is smaller. */
const MAX_REPORT_BYTES = 1024 * 1024;

/** Why the report is too large to be kept; undefined if it is not. What writers left in it has as much for itself. */
export function whyTooLarge({ artefacts = [], ...report }: FreezeReport): string | undefined {
  const bytes = Math.max(...[report, artefacts].map((part) => Buffer.byteLength(JSON.stringify(part))));
  if (bytes <= MAX_REPORT_BYTES) return undefined;
  return `the guest's report has ${bytes} bytes, at most ${MAX_REPORT_BYTES} are taken as evidence`;
}

/** Throws an UnreachableError if a guest's answer is too large to be shown. */
export function checkSize(what: string, answer: unknown): void {
  const bytes = Buffer.byteLength(JSON.stringify(answer));
  if (bytes <= MAX_REPORT_BYTES) return;
  throw new UnreachableError('E_REPLY', `the guest's ${what} has ${bytes} bytes, expected at most ${MAX_REPORT_BYTES}`);
}
