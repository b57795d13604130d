// How large an overlay is: in the results of `status` and `snapshot watch`.
import * as v from 'valibot';
import { finite } from '../../../consistency.js';
import { bytes, is, maybe, text, texts } from './meaning.js';

export const overlaySizeSchema = v.strictObject({
  set: text('the snapshot set'),
  disk: text("id of the guest's device"),
  file: text('the overlay'),
  allocatedBytes: maybe(
    finite,
    'what it takes on its filesystem, holes not counted (bytes); absent if it is not there',
  ),
  fileBytes: maybe(finite, 'from its start to its end (bytes); absent if it is not there'),
  virtualSize: bytes('size of the disk'),
  ageMs: is(finite, 'time since the cut, or since it was last reverted to (milliseconds)'),
  bytesPerHour: maybe(finite, 'growth on the average of its age (bytes); absent for one younger than a minute'),
});

const limitBytes = bytes('the limit given');

export const watchOnceSchema = v.strictObject({
  limitBytes,
  overlays: is(v.array(overlaySizeSchema), 'all overlays of the VM'),
  above: is(v.array(overlaySizeSchema), 'those of them above the limit'),
  unreadable: texts('names of sets that cannot be read: their overlays were not looked at'),
});

export const watchSchema = v.strictObject({
  event: is(v.picklist(['above-limit', 'below-limit']), 'what happened to the overlay'),
  at: text('when (ISO 8601, UTC)'),
  limitBytes,
  overlay: is(overlaySizeSchema, 'the overlay, as it is now'),
});
