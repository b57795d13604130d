// Draws a hold as a small bar chart: what was paused and frozen, and for how long, on one scale. The guest counts its spans
// from the beginning of its session. Phases before the hold (prepare, sync) are told in numbers, since they may have taken
// a thousand times as long.
import type { FreezeReport, Span } from '../../consistency.js';
import { printableLine } from '../../printable.js';

const WIDTH = 48;
const NAME_WIDTH = 28;

interface Bar {
  readonly name: string;
  /** A later span is drawn over an earlier one. */
  readonly spans: readonly { readonly span: Span; readonly mark: string }[];
  readonly note: string;
}

/** The lines, safe to print. Empty if the guest reported no spans. */
export function timeline(report: FreezeReport): string[] {
  const bars = [...writerBars(report), ...filesystemBars(report)];
  const spans = bars.flatMap((bar) => bar.spans.map(({ span }) => span));
  if (spans.length === 0) return [];
  const startMs = Math.min(...spans.map((span) => span.startMs));
  const endMs = Math.max(...spans.map((span) => span.endMs));
  const cellOf = (ms: number): number => Math.round(((ms - startMs) / Math.max(endMs - startMs, 0.001)) * (WIDTH - 1));
  const lines = bars.map(({ name, spans: own, note }) => {
    const cells = Array<string>(WIDTH).fill(' ');
    for (const { span, mark } of own) cells.fill(mark, cellOf(span.startMs), cellOf(span.endMs) + 1);
    return `${fit(name)} |${cells.join('')}| ${printableLine(note)}`;
  });
  const head = `${fit('')} |${'0'.padEnd(WIDTH - 12)}${ms(endMs - startMs).padStart(12)}|`;
  return [head, ...lines, `${fit('')}  > freezing  = held  # frozen  < letting go`];
}

function writerBars({ writers }: FreezeReport): Bar[] {
  return writers
    .filter(({ verdict }) => verdict !== 'not-applicable')
    .map(({ name, verdict, phases, reason }) => {
      const find = (wanted: string): Span | undefined => phases.findLast(({ phase }) => phase === wanted);
      const [prepare, freeze, thaw] = [find('prepare'), find('freeze'), find('thaw')];
      const notes = [
        ...(freeze === undefined || thaw === undefined ? [] : [`held ${ms(thaw.endMs - freeze.startMs)}`]),
        reason === undefined ? verdict : `${verdict} (${reason})`,
        ...(prepare === undefined ? [] : [`prepared in ${ms(length(prepare))}`]),
      ];
      return { name: `writer ${name}`, spans: hold(freeze, thaw, '='), note: notes.join(', ') };
    });
}

function filesystemBars({ filesystems }: FreezeReport): Bar[] {
  return filesystems
    .filter(({ concerned }) => concerned)
    .map(({ mountpoint, type, held, sync, freeze, thaw, reason }) => {
      const notes = [
        ...(freeze === undefined || thaw === undefined ? [] : [ms(thaw.endMs - freeze.startMs)]),
        reason === undefined ? held : `${held} (${reason})`,
        ...(sync === undefined ? [] : [`synced in ${ms(length(sync))}`]),
      ];
      return { name: `${mountpoint} (${type})`, spans: hold(freeze, thaw, '#'), note: notes.join(', ') };
    });
}

function hold(freeze: Span | undefined, thaw: Span | undefined, mark: string): Bar['spans'] {
  if (freeze === undefined) return [];
  const between = { startMs: freeze.endMs, endMs: (thaw ?? freeze).startMs };
  return [
    { span: freeze, mark: '>' },
    ...(thaw === undefined ? [] : [{ span: thaw, mark: '<' }]),
    ...(thaw === undefined ? [] : [{ span: between, mark }]),
  ];
}

function length({ startMs, endMs }: Span): number {
  return endMs - startMs;
}

function ms(value: number): string {
  return value >= 10_000 ? `${(value / 1000).toFixed(1)} s` : `${value.toFixed(1)} ms`;
}

function fit(name: string): string {
  const safe = printableLine(name);
  return safe.length > NAME_WIDTH ? `${safe.slice(0, NAME_WIDTH - 1)}~` : safe.padEnd(NAME_WIDTH);
}
