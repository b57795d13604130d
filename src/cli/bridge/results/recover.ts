// The result of `recover`.
import * as v from 'valibot';
import { exitCodeSchema } from './failure.js';
import { flag, is, maybe, text, texts } from './meaning.js';

const findingKinds = {
  'guest-held': 'a guest that a killed tool held',
  'set-unfinished': 'a set whose maker ended before it was whole',
  'set-unreadable': 'a manifest that cannot be read',
  'set-busy': 'a set that another process works on',
  'set-commit': 'a commit that was begun',
  'set-revert': 'a revert that was begun',
  'set-delete': 'a delete that was begun',
  'set-left': 'what is left of a set',
  'backup-unfinished': 'a backup that its maker did not finish',
  'restore-unfinished': 'a restore in place that its maker did not finish',
  'base-written': 'a base that was written to since its cut',
  'image-missing': 'an image that is not there',
  'node-left': 'a block node of ours in QEMU that nothing uses',
  'job-left': 'a job of ours in QEMU that is over',
  'file-left': 'a file of ours that nothing uses',
  'overlay-unknown': 'a layer that somebody else made',
  'folder-unknown': 'a folder in the state directory of which nobody knows the VM',
  'vm-busy': 'a VM that another process works on',
  'vm-unreachable': 'a VM that does not answer',
  'vm-failed': 'a VM at which recover itself failed',
} as const;

const statuses = {
  done: 'put right',
  planned: 'would be put right, without --dry-run',
  yours: 'only you can decide it',
  busy: 'not now: somebody is at it, or it cannot be asked',
  failed: 'could not be put right',
} as const;

const wordsOf = <T extends Readonly<Record<string, string>>>(words: T): (keyof T & string)[] => Object.keys(words);
const told = (words: Readonly<Record<string, string>>): string =>
  Object.entries(words)
    .map(([word, meaning]) => `\`${word}\` (${meaning})`)
    .join(', ');

export const recoverSchema = v.strictObject({
  vms: texts('names of the VMs that were looked at'),
  dryRun: flag('nothing was changed: --dry-run'),
  findings: is(
    v.array(
      v.strictObject({
        vm: text('name of the VM'),
        set: maybe(v.string(), 'the snapshot set'),
        kind: is(v.picklist(wordsOf(findingKinds)), `what was found: ${told(findingKinds)}`),
        status: is(v.picklist(wordsOf(statuses)), `what became of it: ${told(statuses)}`),
        found: text('what was found, in a sentence'),
        did: text('what was done about it, would be, or has to be'),
        commands: texts('command lines to type'),
        thawUnconfirmed: maybe(v.boolean(), 'true: the guest may still be held'),
      }),
    ),
    'what was found, in the order in which it was dealt with',
  ),
  exitCode: exitCodeSchema,
});
