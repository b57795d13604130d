// How much of a guest's words is taken.
import { expect, test } from 'vitest';
import type { Artefact } from '../../../../src/consistency.js';
import { whyTooLarge } from '../../../../src/host/guest/report-size.js';
import { freezeReport } from '../../../support/freeze-reports.js';

const HALF = 600 * 1024;
const report = freezeReport({ evidence: ['x'.repeat(HALF)] });
const artefacts = (bytes: number): Artefact[] => [{ writer: 'w', name: 'a', text: 'x'.repeat(bytes), size: bytes }];

test('a report keeps its worth with all that writers may leave in it', () => {
  expect(whyTooLarge({ ...report, artefacts: artefacts(HALF) })).toBeUndefined();
});

test('neither a report nor its artefacts may be larger than 1 MiB', () => {
  expect(whyTooLarge(freezeReport({ evidence: ['x'.repeat(2 * HALF)] }))).toContain('at most 1048576');
  expect(whyTooLarge({ ...report, artefacts: artefacts(2 * HALF) })).toContain('at most 1048576');
});
