// The help texts of fsfreeze-snapshot.
import { exitCodes } from './exit-codes.js';

const CODES = Object.entries(exitCodes)
  .map(([code, meaning]) => `  ${code.padStart(2)}  ${meaning}`)
  .join('\n');

const COMMON = `  -c, --config FILE   the agent's configuration (default /etc/qemu/qemu-ga.conf)
      --json          one object on standard output, for programs
  -h, --help          this text
  -V, --version       the version`;

const command = (usage: string, what: string, options: string, examples: string): string =>
  `usage: ${usage}\n\n${what}\n\nOptions:\n${options === '' ? '' : `${options}\n`}${COMMON}\n\nExamples:\n${examples}\n\nExit codes:\n${CODES}\n`;

/** By command; without one, that of the whole program. */
export const helpTexts = {
  '': command(
    'fsfreeze-snapshot writers [list | test NAME | lint FILE]',
    'What is about snapshots inside this guest: the writers, which hold its applications while disks are cut.\nManual: writers.md in /usr/share/doc/fsfreeze-agent.',
    '',
    '  fsfreeze-snapshot writers                                what speaks for the applications here\n  fsfreeze-snapshot writers test --help',
  ),
  list: command(
    'fsfreeze-snapshot writers [list]',
    'Lists the writers that a freeze would run, and those that it would not, with the reason. The agent is asked, as\n`fsfreeze-bridge writers` on the host asks it. If none answers, the folders are looked at.',
    '',
    '  fsfreeze-snapshot writers\n  fsfreeze-snapshot writers list --json',
  ),
  test: command(
    'fsfreeze-snapshot writers test NAME',
    'Holds one writer and lets it go, as a session does, but freezes nothing: prepare, freeze, verify, verify, thaw, post.\nTells how long each took, what it printed and what a session would make of it. The application stands still from\nfreeze to thaw. No session can begin meanwhile. A signal lets go. Needs root.',
    '      --hold SECONDS  stay between the two verifications, to look at the application (0 to 60, default 0)',
    '  fsfreeze-snapshot writers test 50-postgresql\n  fsfreeze-snapshot writers test 50-postgresql --hold 5      and try to write meanwhile',
  ),
  lint: command(
    'fsfreeze-snapshot writers lint FILE',
    'Says what a freeze would say of a hook, before it is installed, and warns of what is legal and unwise. Starts nothing.\nWithout --as the file is judged where it lies, with owner and mode.',
    "      --as FOLDER     the writers' folder in which it will lie, of root and with mode 755",
    '  fsfreeze-snapshot writers lint ./60-app --as /etc/fsfreeze-bridge/fsfreeze-hook.d\n  fsfreeze-snapshot writers lint /etc/qemu/fsfreeze-hook.d/mysql-flush.sh',
  ),
} as const;
