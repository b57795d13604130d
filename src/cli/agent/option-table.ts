// fsfreeze-agent's options: qemu-ga 10.2's, and ours. What getopt.ts is told, and what --help prints.
import type { OptionForm } from './getopt.js';

interface OptionRow extends OptionForm {
  readonly argument?: string;
  readonly text: string;
}

const rows: readonly OptionRow[] = [
  {
    short: 'c',
    long: 'config',
    value: 'required',
    argument: 'PATH',
    text: 'configuration file (default $QGA_CONF, else /etc/qemu/qemu-ga.conf)',
  },
  {
    short: 'm',
    long: 'method',
    value: 'required',
    argument: 'METHOD',
    text: 'virtio-serial (the default), isa-serial or unix-listen',
  },
  {
    short: 'p',
    long: 'path',
    value: 'required',
    argument: 'PATH',
    text: 'device or socket (default /dev/virtio-ports/org.qemu.guest_agent.0, /dev/ttyS0)',
  },
  { short: 'l', long: 'logfile', value: 'required', argument: 'PATH', text: 'log file (default: standard error)' },
  {
    short: 'f',
    long: 'pidfile',
    value: 'required',
    argument: 'PATH',
    text: 'accepted; qemu-ga writes it with -d only',
  },
  {
    short: 'F',
    long: 'fsfreeze-hook',
    value: 'optional',
    argument: 'PATH',
    text: 'hook to run on freeze and thaw; without a path /etc/qemu/fsfreeze-hook',
  },
  {
    short: 't',
    long: 'statedir',
    value: 'required',
    argument: 'PATH',
    text: 'accepted; state is in /run/fsfreeze-bridge',
  },
  { short: 'v', long: 'verbose', value: 'none', text: 'log debugging information' },
  { short: 'V', long: 'version', value: 'none', text: 'print the version and exit' },
  { short: 'd', long: 'daemonize', value: 'none', text: 'not supported: run it under a service manager' },
  {
    short: 'b',
    long: 'block-rpcs',
    value: 'required',
    argument: 'LIST',
    text: "commands the host may not use, separated by commas; 'help' lists them all",
  },
  { short: 'a', long: 'allow-rpcs', value: 'required', argument: 'LIST', text: 'the only commands the host may use' },
  { short: 'D', long: 'dump-conf', value: 'none', text: 'print the configuration as qemu-ga does and exit' },
  { short: 'r', long: 'retry-path', value: 'none', text: 'try a channel that cannot be opened again, every 5 s' },
  { short: 'h', long: 'help', value: 'none', text: 'print this and exit' },
  { long: 'compat', value: 'required', argument: 'RELEASE', text: "whose wording: '10.2' (the default) or '7.2'" },
  {
    long: 'policy',
    value: 'required',
    argument: 'PRESET',
    text: 'what the host may ask for: freeze-only, default or full',
  },
  { long: 'freezer', value: 'required', argument: 'PATH', text: 'the freezer program, started if it does not run' },
  {
    long: 'local-socket',
    value: 'required',
    argument: 'PATH',
    text: "socket for programs inside the guest; 'none': without",
  },
];

export const optionForms: readonly OptionForm[] = rows;

/** The text of --help. */
export function describeOptions(program: string): string {
  const names = rows.map(({ short, long, argument, value }) => {
    const shown = argument === undefined ? '' : value === 'optional' ? `[=${argument}]` : `=${argument}`;
    return `${short === undefined ? '    ' : `-${short}, `}--${long}${shown}`;
  });
  const width = Math.max(...names.map((name) => name.length)) + 2;
  const lines = rows.map(({ text }, index) => `  ${(names[index] ?? '').padEnd(width)}${text}`);
  return `Usage: ${program} [OPTION]...\nThe fsfreeze-bridge guest agent; a drop-in for qemu-ga.\n\n${lines.join('\n')}\n`;
}
