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

const TAKE = `      --require LEVEL     application, filesystem, crash, none or auto: below it nothing is read
      --require-snapshot  fail rather than bind what cannot be snapshot
      --lease SECONDS     how long filesystems may stay frozen (1 to 600, default 10)
      --ttl SECONDS       how long the snapshots may live
      --cow-size SIZE     room for what changes meanwhile: 500M, 2G or 15% (default: by what was written so far)
      --provider NAME     no other than this one
      --dry-run           only say what would be done
`;

/** By command; without one, that of the whole program. */
export const helpTexts = {
  '': command(
    'fsfreeze-snapshot COMMAND ...\n       fsfreeze-snapshot [-t TARGET] PATH...',
    `Snapshots inside this guest, for programs that read files: applications and filesystems are held, the volumes cut, all
let go, and then the snapshots are read. Manual: snapshots.md and writers.md in /usr/share/doc/fsfreeze-agent.

  exec PATH... -- COMMAND   run a command that sees the snapshots in place of the original paths
  [-t TARGET] PATH...       show them below a folder until standard input ends
  start-snapshot, stop-snapshot   the same in two calls
  hold PATH... -- COMMAND   run a command while everything is held: it makes the snapshot
  list, show, release       what is held
  revert                    take volumes back to the cut
  gc                        remove what dead runs left
  providers                 what can be snapshot here, and by what
  writers                   what holds the applications`,
    '',
    '  fsfreeze-snapshot exec /srv /home -- restic backup /srv /home\n  fsfreeze-snapshot exec --help',
  ),
  exec: command(
    'fsfreeze-snapshot exec [OPTION]... PATH... -- COMMAND [ARGUMENT]...',
    `Runs a command in a mount namespace of its own, in which the snapshots lie read-only over the original paths, with all
that is mounted below them: what cannot be snapshot (of the network, served by a process, in memory) is there as it is, and
told. Its exit code is passed on; 125 is a failure of ours, also if a snapshot was lost under the
command. Signals reach the command. FSFREEZE_LEVEL has the level that was reached, FSFREEZE_RUN the run, FSFREEZE_ARTEFACTS the
folder of what writers left for whoever keeps the snapshot, if they left anything.`,
    TAKE.trimEnd(),
    '  fsfreeze-snapshot exec /srv /home -- restic backup /srv /home\n  fsfreeze-snapshot exec / -- tar -C / --one-file-system -cf /backup/root.tar .\n  fsfreeze-snapshot exec --require application --require-snapshot /var/lib/postgresql -- borg create ::{now} /var/lib/postgresql\n  fsfreeze-snapshot exec /srv -- sh -c "restic backup --tag \\$FSFREEZE_LEVEL /srv"\n  fsfreeze-snapshot exec --dry-run /srv',
  ),
  '-t': command(
    'fsfreeze-snapshot [-t TARGET] [OPTION]... PATH...',
    `Mounts the snapshots of the filesystems that the paths lie on below TARGET, which becomes the root of their tree. Says
done and closes standard output when they are there, and takes them away when standard input ends, be it because the
caller died. What cannot be snapshot is bound, and told.`,
    `  -t, --target TARGET     an empty folder (default /mnt)
      --no-stdin          hold until released or ended by a signal
${TAKE}`.trimEnd(),
    '  fsfreeze-snapshot -t /mnt/snap /srv /home\n  fsfreeze-snapshot -t /mnt/snap --no-stdin /srv &',
  ),
  'start-snapshot': command(
    'fsfreeze-snapshot start-snapshot [-t TARGET] [OPTION]... PATH...',
    'The same as without a command, in the background: returns when the tree is there.',
    `  -t, --target TARGET     an empty folder (default /mnt)\n${TAKE}`.trimEnd(),
    '  fsfreeze-snapshot start-snapshot -t /mnt/snap /srv && rsync -a /mnt/snap/ backup:; fsfreeze-snapshot stop-snapshot',
  ),
  'stop-snapshot': command(
    'fsfreeze-snapshot stop-snapshot',
    'Releases what start-snapshot began, and waits until nothing is left of it. 69 if a snapshot was lost while it was read.',
    '',
    '  fsfreeze-snapshot stop-snapshot',
  ),
  hold: command(
    'fsfreeze-snapshot hold [OPTION]... PATH... -- COMMAND [ARGUMENT]...',
    `Holds the writers and freezes the filesystems of the paths while a command runs: one that tells a storage to make a
snapshot. It must not write to what is frozen. Its exit code is passed on; 125: it was not held to its end, or not at the level.`,
    '      --require LEVEL     application, filesystem, crash, none or auto: below it the command is not run\n      --lease SECONDS     renewed while the command runs (1 to 600, default 10)',
    '  fsfreeze-snapshot hold /srv -- ssh -o BatchMode=yes array snapshot create lun7',
  ),
  list: command('fsfreeze-snapshot list', 'Lists the snapshots that are held.', '', '  fsfreeze-snapshot list --json'),
  show: command('fsfreeze-snapshot show RUN', 'Shows one of them.', '', '  fsfreeze-snapshot show 1f0c77aa'),
  release: command(
    'fsfreeze-snapshot release RUN',
    'Has its holder let go, and waits until nothing is left. A command that reads the snapshots is ended by SIGTERM.',
    '',
    '  fsfreeze-snapshot release 1f0c77aa',
  ),
  revert: command(
    'fsfreeze-snapshot revert RUN',
    `Takes the volumes of a run back to the cut (lvconvert --merge): EVERYTHING WRITTEN TO THEM SINCE IS LOST. Asks first. A
volume that is in use goes back when it is activated the next time.`,
    '  -y, --yes           do not ask',
    '  fsfreeze-snapshot revert 1f0c77aa',
  ),
  gc: command(
    'fsfreeze-snapshot gc [--run RUN]',
    'Removes what is left of runs whose holder is dead, and nothing else: mounts, and volumes with our tags that\nthis machine made. Tells what was lost, once, with 69.',
    '      --run RUN       of this run alone, also if it is not noted here',
    '  fsfreeze-snapshot gc',
  ),
  providers: command(
    'fsfreeze-snapshot providers [PATH...]',
    'Says for each filesystem what would snapshot it, or why nothing can.',
    '',
    '  fsfreeze-snapshot providers /srv --json',
  ),
  'writers list': command(
    'fsfreeze-snapshot writers [list]',
    'Lists the writers that a freeze would run, and those that it would not, with the reason. The agent is asked, as\n`fsfreeze-bridge writers` on the host asks it. If none answers, the folders are looked at.',
    '',
    '  fsfreeze-snapshot writers\n  fsfreeze-snapshot writers list --json',
  ),
  'writers test': command(
    'fsfreeze-snapshot writers test NAME',
    'Holds one writer and lets it go, as a session does, but freezes nothing: prepare, freeze, verify, verify, thaw, post.\nTells how long each took, what it printed and what a session would make of it. The application stands still from\nfreeze to thaw. No session can begin meanwhile. A signal lets go. Needs root.',
    '      --hold SECONDS  stay between the two verifications, to look at the application (0 to 60, default 0)',
    '  fsfreeze-snapshot writers test 50-postgresql\n  fsfreeze-snapshot writers test 50-postgresql --hold 5      and try to write meanwhile',
  ),
  'writers lint': command(
    'fsfreeze-snapshot writers lint FILE',
    'Says what a freeze would say of a hook, before it is installed, and warns of what is legal and unwise. Starts nothing.\nWithout --as the file is judged where it lies, with owner and mode.',
    "      --as FOLDER     the writers' folder in which it will lie, of root and with mode 755",
    '  fsfreeze-snapshot writers lint ./60-app --as /etc/fsfreeze-bridge/fsfreeze-hook.d\n  fsfreeze-snapshot writers lint /etc/qemu/fsfreeze-hook.d/mysql-flush.sh',
  ),
} as const;
