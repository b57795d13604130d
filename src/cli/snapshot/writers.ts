// The commands about writers: list, test, lint.
import { printableLine } from '../../printable.js';
import type { Invocation } from './command-line.js';
import type { ExitCode } from './exit-codes.js';
import type { GuestSettings } from './guest-settings.js';
import { describeLint, lintWriter } from './lint.js';
import { describeList, listWriters } from './list.js';
import { describeTest, exitCodeOfTest, testWriter } from './test.js';

export type WritersInvocation = Extract<Invocation, { readonly kind: `writers ${string}` }>;

interface Telling {
  readonly tell: (value: object, rows: readonly string[]) => void;
  readonly note: (text: string) => void;
  readonly signal: AbortSignal;
}

export async function runWriters(
  invocation: WritersInvocation,
  settings: GuestSettings,
  { tell, note, signal }: Telling,
): Promise<ExitCode> {
  switch (invocation.kind) {
    case 'writers list': {
      const list = await listWriters(settings);
      tell(list, describeList(list));
      return 0;
    }
    case 'writers lint': {
      const lint = lintWriter(settings, invocation.file, invocation.as);
      tell(lint, describeLint(lint));
      return lint.problems.length === 0 ? 0 : 1;
    }
    case 'writers test': {
      const { name, holdMs } = invocation;
      const progress = (text: string): void => {
        note(printableLine(text));
      };
      const rehearsal = await testWriter(settings, { name, holdMs, signal, progress });
      tell(rehearsal, describeTest(rehearsal));
      return exitCodeOfTest(rehearsal, signal);
    }
  }
}
