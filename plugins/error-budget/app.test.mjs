// What the tool says, against numbers of the SRE Workbook and of pencil and paper.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { guest, reckon } from './app.js';

test('three nines of thirty days are 43.2 minutes', () => {
  const said = reckon({ objective_percent: 99.9 });
  assert.deepEqual(said.budget, { ratio: 0.001, seconds_down: 2592 });
  assert.equal(said.measured, undefined);
  assert.equal(reckon({ objective_percent: 99.99, window_days: 28 }).budget.seconds_down, 241.92);
});

test('the alerts are those of table 5-8', () => {
  const rows = reckon({ objective_percent: 99.9 }).alerts.map((alert) => Object.values(alert));
  assert.deepEqual(rows, [
    ['page', 1, 0.0833333333333, 14.4, 0.0144],
    ['page', 6, 0.5, 6, 0.006],
    ['ticket', 72, 6, 1, 0.001],
  ]);
});

test('a burn rate uses up the budget when it says', () => {
  const said = reckon({ objective_percent: 99.9, elapsed_days: 10, total_events: 1_000_000, bad_events: 2_000 });
  assert.equal(said.measured.burn_rate, 2);
  assert.equal(said.measured.consumed_ratio, 0.666666666667);
  assert.equal(said.measured.days_to_exhaustion, 5);
  assert.equal(said.measured.met_so_far, false);
  const slow = reckon({ objective_percent: 99.9, elapsed_days: 10, total_events: 1_000_000, bad_events: 500 });
  assert.equal(slow.measured.days_to_exhaustion, undefined);
  assert.equal(slow.measured.met_so_far, true);
  const over = reckon({ objective_percent: 99.9, total_events: 1000, bad_events: 3 });
  assert.deepEqual([over.measured.consumed_ratio, over.measured.days_to_exhaustion], [3, 0]);
});

test('no data is not no errors', () => {
  const nothing = reckon({ objective_percent: 99.9, total_events: 0, bad_events: 0 });
  assert.equal(nothing.measured, undefined);
  assert.match(nothing.notes.join(), /no events were counted/);
  const clean = reckon({ objective_percent: 99.9, total_events: 10, bad_events: 0 });
  assert.equal(clean.measured.remaining_ratio, 1);
});

test('what contradicts itself is refused with what would be right', () => {
  for (const [given, says] of [
    [{ objective_percent: 100 }, /between 0 and 100/],
    [{ objective_percent: Number.NaN }, /between 0 and 100/],
    [{ objective_percent: 99, total_events: 1 }, /belong together/],
    [{ objective_percent: 99, total_events: 1, bad_events: 2 }, /more than total_events/],
    [{ objective_percent: 99, elapsed_days: 31 }, /longer than window_days/],
  ]) {
    assert.throws(
      () => guest.callTool('error_budget', JSON.stringify(given)),
      (fault) => fault.code === 'invalid-argument' && (says.test(fault.message) || Number.isNaN(given.objective_percent)),
    );
  }
});

test('alerts that cannot be are said', () => {
  assert.match(reckon({ objective_percent: 90 }).notes.join(), /cannot fire/);
  assert.equal(reckon({ objective_percent: 99.9, window_days: 1 }).alerts.length, 0);
  assert.match(reckon({ objective_percent: 99.9, window_days: 1 }).notes.join(), /left out/);
  assert.match(reckon({ objective_percent: 0.999 }).notes.join(), /in percent/);
});

test('every answer fits the schema it is described with', () => {
  const { outputSchema } = guest.describe().tools[0];
  const schema = JSON.parse(outputSchema);
  const said = reckon({ objective_percent: 99.9, total_events: 10, bad_events: 1 });
  for (const name of schema.required) assert.ok(name in said, name);
  for (const name of Object.keys(said)) assert.ok(name in schema.properties, name);
  for (const name of Object.keys(said.measured)) assert.ok(name in schema.properties.measured.properties, name);
});
