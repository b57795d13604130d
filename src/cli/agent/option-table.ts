// The table of fsfreeze-agent's options: qemu-ga 10.2's, in its order (getopt's messages show it), and ours. getopt.ts
// reads by it, and --help is printed from it.
import type { OptionForm } from './getopt.js';

interface OptionRow extends OptionForm {
  readonly argument?: string;
  readonly text: string;
  /** Accepted, and not shown by --help. */
  readonly hidden?: true;
}

const flag = (short: string, long: string, text: string): OptionRow => ({ short, long, value: 'none', text });
const taking = (short: string, long: string, argument: string, text: string): OptionRow => ({
  short,
  long,
  value: 'required',
  argument,
  text,
});
const ourFlag = (long: string, text: string): OptionRow => ({ long, value: 'none', text });
const ours = (long: string, argument: string, text: string): OptionRow => ({ long, value: 'required', argument, text });

const rows: readonly OptionRow[] = [
  flag('h', 'help', 'print this and exit'),
  taking('c', 'config', 'PATH', 'configuration file (default $QGA_CONF, else /etc/qemu/qemu-ga.conf)'),
  flag('V', 'version', 'print the version and exit'),
  flag('D', 'dump-conf', 'print the configuration as qemu-ga does and exit'),
  taking('l', 'logfile', 'PATH', 'log file (default: standard error)'),
  taking('f', 'pidfile', 'PATH', 'written and locked with -d (default /var/run/qemu-ga.pid)'),
  {
    short: 'F',
    long: 'fsfreeze-hook',
    value: 'optional',
    argument: 'PATH',
    text: 'hook to run on freeze and thaw; without a path /etc/qemu/fsfreeze-hook',
  },
  flag('v', 'verbose', 'log debugging information'),
  taking('m', 'method', 'METHOD', 'virtio-serial (the default), isa-serial, unix-listen or none (without a host)'),
  taking('p', 'path', 'PATH', 'device or socket (default /dev/virtio-ports/org.qemu.guest_agent.0, /dev/ttyS0)'),
  flag('d', 'daemonize', 'become a daemon; exit 0 when it serves'),
  taking('b', 'block-rpcs', 'LIST', "commands the host may not use, separated by commas; 'help' lists them all"),
  { long: 'blacklist', value: 'required', text: 'old name of --block-rpcs', hidden: true },
  taking('a', 'allow-rpcs', 'LIST', "the only commands the host may use; 'help' lists them all"),
  taking('t', 'statedir', 'PATH', 'accepted; nothing is kept there (default /var/run)'),
  flag('r', 'retry-path', 'try a channel that cannot be opened again, every 5 s'),
  ours('compat', 'RELEASE', "whose wording: '10.2' (the default) or '7.2'"),
  ours('policy', 'PRESET', 'what the host may ask for: freeze-only, default or full'),
  ours('report-version', 'TEXT', 'what guest-info gives as version (default: ours)'),
  ours('freezer', 'PATH', 'the freezer program, started if it does not run'),
  ours('local-socket', 'PATH', "socket for programs inside the guest; 'none': without"),
  ourFlag('service', "as the unit runs it: with the distribution's settings for qemu-ga, a watchdog, exit code 78"),
  ourFlag(
    'check-config',
    'print what --service would use, ignore and refuse; exit 0, 1 (see to it) or 78 (cannot start)',
  ),
  ourFlag('json', 'with --check-config: as one line of JSON'),
];

export const optionForms: readonly OptionForm[] = rows;

/** The text of --help. */
export function describeOptions(program: string): string {
  const shown = rows.filter(({ hidden }) => hidden !== true);
  const names = shown.map(({ short, long, argument, value }) => {
    const taken = argument === undefined ? '' : value === 'optional' ? `[=${argument}]` : `=${argument}`;
    return `${short === undefined ? '    ' : `-${short}, `}--${long}${taken}`;
  });
  const width = Math.max(...names.map((name) => name.length)) + 2;
  const lines = shown.map(({ text }, index) => `  ${(names[index] ?? '').padEnd(width)}${text}`);
  return `Usage: ${program} [OPTION]...\nThe fsfreeze-bridge guest agent; a drop-in for qemu-ga.\n\n${lines.join('\n')}\n`;
}
