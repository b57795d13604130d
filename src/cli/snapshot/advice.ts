// Warns of what is legal in a writer and unwise. Told by its description and by its text alone: what it does is known
// only when it runs.
import { existsSync } from 'node:fs';
import type { WriterPhase } from '../../consistency.js';
import { defaultOptions, type CoordinatorOptions } from '../../freeze/options.js';
import { phaseLimitsMs, type Described, type WriterDescription } from '../../freeze/writers/description.js';

type Budgets = Pick<CoordinatorOptions, 'holdBudgetMs' | 'prepareBudgetMs'>;

/** One sentence each. */
export function adviceOn(
  text: string,
  described: Exclude<Described, { readonly kind: 'bad' }>,
  budgets: Budgets,
): readonly string[] {
  const phases = described.kind === 'plain' ? (['freeze', 'thaw'] as const) : described.description.phases;
  return [
    ...(described.kind === 'plain' ? onPlain(text) : onDescription(described.description, budgets)),
    ...onText(text, phases),
  ];
}

function onPlain(text: string): readonly string[] {
  const claim =
    "a plain hook's exit 0 is a claim: no snapshot gets above filesystem (describe it, with verify and guarantee)";
  if (!isShell(text)) return [claim];
  const lines = text.split('\n').map((line) => line.trim());
  const last = lines.findLast((line) => line !== '' && !line.startsWith('#')) ?? '';
  if (/^(exit|exec)\b/.test(last)) return [claim];
  return [claim, "it does not end with 'exit 0': the code of its last command is its own, and any but 0 is a failure"];
}

function onDescription(description: WriterDescription, budgets: Budgets): readonly string[] {
  const { phases, guarantee, covers, timeout } = description;
  const limitMs = (phase: WriterPhase): number =>
    phases.includes(phase) ? (timeout[phase] === undefined ? phaseLimitsMs[phase] : timeout[phase] * 1000) : 0;
  const holdMs = budgets.holdBudgetMs ?? defaultOptions.holdBudgetMs;
  const prepareMs = budgets.prepareBudgetMs ?? defaultOptions.prepareBudgetMs;
  const over = (phase: WriterPhase, budgetMs: number): readonly string[] =>
    limitMs(phase) > budgetMs
      ? [`timeout.${phase}: all writers have ${budgetMs / 1000} s together, so it never has ${limitMs(phase) / 1000} s`]
      : [];
  return [
    ...(guarantee === undefined
      ? ['it has no verify and no guarantee: nothing proves its hold, and no snapshot gets above filesystem']
      : []),
    ...((guarantee === 'recoverable' || guarantee === 'artefact') && phases.includes('freeze')
      ? [`guarantee=${guarantee} holds nothing: without freeze and thaw applications wait for one process less`]
      : []),
    ...over('prepare', prepareMs),
    ...over('freeze', holdMs),
    ...over('verify', holdMs),
    ...covers.filter((path) => !existsSync(path)).map((path) => `it covers ${path}, which is not there`),
  ];
}

/** Of programs nothing is known. */
function onText(text: string, phases: readonly WriterPhase[]): readonly string[] {
  if (!text.startsWith('#!'))
    return text.startsWith('\u007fELF') ? [] : ["it has no '#!' line: which program runs it is left to chance"];
  const code = text
    .split('\n')
    .filter((line) => !line.trim().startsWith('#'))
    .join('\n');
  return phases
    .filter((phase) => !new RegExp(`\\b${phase}\\b`).test(code))
    .map((phase) => `its code never names the phase ${phase}, which it is called with`);
}

function isShell(text: string): boolean {
  return /^#!.*\b(ba|da|z|k|a)?sh\b/.test(text);
}
