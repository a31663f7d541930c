// The tool `error_budget`: what is left of the error budget of an objective, how fast it burns, and at which rates to wake
// somebody. Pure: it reckons with numbers it is given and asks nobody. Guards that no data is not "no errors".
//
// Sources: the SRE Workbook, chapter 5 "Alerting on SLOs" (https://sre.google/workbook/alerting-on-slos/), table 5-8 for the
// alerts: 2 % of the budget in one hour, 5 % in six hours, 10 % in three days, each with a short window of a twelfth.

const number = (description, rest) => ({ type: 'number', description, ...rest });

const input = {
  type: 'object',
  properties: {
    objective_percent: number('The objective in percent, such as 99.9.', { exclusiveMinimum: 0, exclusiveMaximum: 100 }),
    window_days: number('Days the objective is for.', { exclusiveMinimum: 0, maximum: 400, default: 30 }),
    elapsed_days: number('Days of the window that the counts are from; the whole window when absent.', { exclusiveMinimum: 0 }),
    total_events: number('Events (requests, minutes, probes) counted in that time.', { minimum: 0 }),
    bad_events: number('Those of them that count against the objective.', { minimum: 0 }),
  },
  required: ['objective_percent'],
  additionalProperties: false,
};

const output = {
  type: 'object',
  properties: {
    objective_percent: { type: 'number' },
    window_days: { type: 'number' },
    budget: {
      type: 'object',
      description: 'What may go wrong in the window.',
      properties: { ratio: { type: 'number' }, seconds_down: { type: 'number' } },
      required: ['ratio', 'seconds_down'],
    },
    measured: {
      type: 'object',
      description: 'Absent when nothing was counted.',
      properties: {
        error_ratio: { type: 'number' },
        burn_rate: { type: 'number', description: '1 uses up exactly the budget in the window.' },
        consumed_ratio: { type: 'number', description: 'Of the budget of the whole window; above 1 the objective is missed.' },
        remaining_ratio: { type: 'number' },
        days_to_exhaustion: { type: 'number', description: 'At this burn rate from now; absent when it does not run out.' },
        met_so_far: { type: 'boolean' },
      },
      required: ['error_ratio', 'burn_rate', 'consumed_ratio', 'remaining_ratio', 'met_so_far'],
    },
    alerts: {
      type: 'array',
      items: {
        type: 'object',
        properties: {
          severity: { type: 'string' },
          long_window_hours: { type: 'number' },
          short_window_hours: { type: 'number' },
          burn_rate: { type: 'number' },
          error_ratio: { type: 'number', description: 'Alert when both windows are above; above 1 means it cannot fire.' },
        },
      },
    },
    notes: { type: 'array', items: { type: 'string' } },
  },
  required: ['objective_percent', 'window_days', 'budget', 'alerts', 'notes'],
};

/** Twelve digits: the rest is noise of binary fractions. */
const plain = (value) => Number(value.toPrecision(12));

const refuse = (message, hint) => {
  throw { code: 'invalid-argument', message, hint, detail: undefined, retryAfterSeconds: undefined };
};

/** What is said of these arguments; throws a fault for what contradicts itself. */
export function reckon(given) {
  const objective = given.objective_percent;
  const days = given.window_days ?? 30;
  const elapsed = given.elapsed_days ?? days;
  if (!(objective > 0 && objective < 100)) {
    refuse('objective_percent must lie between 0 and 100', 'an objective of 100 leaves no budget; write 99.9 for three nines');
  }
  if (elapsed > days) refuse('elapsed_days is longer than window_days', 'count only events of the window');
  const counted = given.total_events !== undefined || given.bad_events !== undefined;
  if (counted && (given.total_events === undefined || given.bad_events === undefined)) {
    refuse('total_events and bad_events belong together', 'give both, or neither for the budget alone');
  }
  if (counted && given.bad_events > given.total_events) {
    refuse('bad_events is more than total_events', 'bad events are counted among all events');
  }
  const ratio = plain((100 - objective) / 100);
  const notes = [];
  if (objective < 1) notes.push('objective_percent is in percent: 0.999 is less than one percent, 99.9 is three nines');
  const said = {
    objective_percent: objective,
    window_days: days,
    budget: { ratio, seconds_down: plain(ratio * days * 86400) },
    alerts: alerts(ratio, days, notes),
    notes,
  };
  if (counted && given.total_events === 0) {
    notes.push('no events were counted: that says nothing about errors, and nothing was used of the budget or saved');
  } else if (counted) {
    said.measured = measured(given.bad_events / given.total_events, ratio, days, elapsed, notes);
  } else {
    notes.push('give total_events and bad_events to see how much of the budget is used');
  }
  return said;
}

function measured(errors, ratio, days, elapsed, notes) {
  const burn = errors / ratio;
  const consumed = burn * (elapsed / days);
  const out = {
    error_ratio: plain(errors),
    burn_rate: plain(burn),
    consumed_ratio: plain(consumed),
    remaining_ratio: plain(1 - consumed),
    met_so_far: consumed <= 1 && burn <= 1,
  };
  if (elapsed < days) notes.push('what is consumed supposes that events come evenly over the window');
  if (consumed >= 1) {
    out.days_to_exhaustion = 0;
  } else if (burn > 0) {
    const left = ((1 - consumed) * days) / burn;
    // After its window an old error counts no more, so a slow burn never uses the budget up.
    if (elapsed + left <= days) out.days_to_exhaustion = plain(left);
  }
  return out;
}

function alerts(ratio, days, notes) {
  const kinds = [
    ['page', 0.02, 1],
    ['page', 0.05, 6],
    ['ticket', 0.1, 72],
  ];
  const made = [];
  for (const [severity, share, hours] of kinds) {
    const burn = (share * days * 24) / hours;
    if (hours > days * 24 || burn < 1) continue;
    made.push({
      severity,
      long_window_hours: hours,
      short_window_hours: plain(hours / 12),
      burn_rate: plain(burn),
      error_ratio: plain(burn * ratio),
    });
  }
  if (made.some((alert) => alert.error_ratio > 1)) {
    notes.push('an alert with an error_ratio above 1 cannot fire: the objective is too low for burn rates');
  }
  if (made.length < kinds.length) notes.push('alerts that do not fit into the window are left out');
  return made;
}

export const guest = {
  describe() {
    const tool = {
      name: 'error_budget',
      title: 'Error budget of an objective',
      description:
        'Reckons with a service level objective: the budget, how much of it is used, the burn rate, when it runs out, and ' +
        'burn rates to alert on. It knows no telemetry; give it counts.',
      risk: 'read',
      idempotent: true,
      openWorld: false,
      inputSchema: JSON.stringify(input),
      outputSchema: JSON.stringify(output),
    };
    return { tools: [tool], signals: [] };
  },

  callTool(name, args, context) {
    const said = JSON.stringify(reckon(JSON.parse(args)));
    return { structured: said, content: [{ tag: 'text', val: said }], failed: false };
  },

  answerQuestion(question, context) {
    throw { code: 'unsupported', message: 'this plugin is no source' };
  },
};
