// guest-set-time and guest-get-timezone. Node can neither set the clock nor name the zone: date(1) and hwclock(8) do.
import { BridgeError } from '../../errors.js';
import { refuse } from '../../qga/server.js';
import { HWCLOCK_ACTION, isExecutable, runAction } from '../program.js';
import { LOOK_LIMIT_MS, type Sources } from '../kernel-files.js';
import { family } from './types.js';

const HWCLOCK = '/sbin/hwclock';
/** hwclock waits for the clock's next full second, and some virtual clocks are slow. */
const CLOCK_LIMIT_MS = 30_000;
const NS_PER_S = 1_000_000_000n;
/** qemu-ga takes the years 1970 to 2069. */
const END_OF_TIME_NS = BigInt(Date.UTC(2070, 0, 1)) * 1_000_000n;

export function timeHandlers(sources: Sources) {
  const { run, compat } = sources;
  return family({
    async 'guest-set-time'({ time }) {
      if (compat === '7.2' && !isExecutable(HWCLOCK)) refuse('this feature or command is not currently supported');
      if (time !== undefined) await setClock(sources, BigInt(time));
      const direction = time === undefined ? '-s' : '-w';
      await runAction(run, compat, HWCLOCK_ACTION, [HWCLOCK, direction], { limitMs: CLOCK_LIMIT_MS });
      return {};
    },
    async 'guest-get-timezone'() {
      const { exitCode, stdout, output } = await run('date', ['+%z %Z'], { limitMs: LOOK_LIMIT_MS });
      const [, sign, hours, minutes, zone] = /^([+-])(\d\d)(\d\d) (\S+)/.exec(stdout) ?? [];
      if (exitCode !== 0 || zone === undefined) return refuse(`'date' does not tell the time zone: ${output.trim()}`);
      const offset = Number(hours) * 3600 + Number(minutes) * 60;
      return { zone, offset: sign === '-' && offset !== 0 ? -offset : offset };
    },
  });
}

async function setClock({ run }: Sources, time: bigint): Promise<void> {
  if (time < 0n || time >= END_OF_TIME_NS) refuse('Invalid time');
  // qemu-ga sets microseconds.
  const micros = (time % NS_PER_S) / 1000n;
  const text = `@${time / NS_PER_S}.${String(micros).padStart(6, '0')}`;
  try {
    const { exitCode, output } = await run('date', [`--set=${text}`], { limitMs: LOOK_LIMIT_MS });
    // date(1) goes on and prints the date that it could not set.
    const [, reason = output.trim()] = /^date: cannot set date: (.+)$/m.exec(output) ?? [];
    if (exitCode !== 0) refuse(`Failed to set time to guest: ${reason}`);
  } catch (error) {
    if (!(error instanceof BridgeError)) throw error;
    refuse(`Failed to set time to guest: ${error.message}`);
  }
}
