import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { parse, stringify } from 'yaml'
import { startTestGateway } from './helpers/gateway.js'
import { handshake } from './helpers/handshake.js'
import { run } from './helpers/processes.js'
import { describeWith } from './helpers/requires.js'

const rulesFile = fileURLToPath(new URL('../examples/monitoring/alerts.yml', import.meta.url))
const alerts: { alert: string; expr: string }[] = parse(readFileSync(rulesFile, 'utf8')).groups[0].rules

/** The queries of the dashboard, with a value for each of Grafana's variables. */
function dashboardQueries(): string[] {
  const text = readFileSync(new URL('../examples/monitoring/dashboard.json', import.meta.url), 'utf8')
  const queries: string[] = []
  JSON.parse(text, (key, value) => {
    if (key === 'expr') queries.push(value)
    return value
  })
  return queries.map(query => query.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*'))
}

async function promtool(...args: string[]): Promise<void> {
  const program = run('promtool', args)
  let output = ''
  program.child.stdout.on('data', chunk => {
    output += chunk
  })
  expect([await program.exited(), `${program.errors()}${output}`]).toEqual([0, expect.anything()])
}

async function temporary(name: string, text: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-rules-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const file = join(directory, name)
  await writeFile(file, text)
  return file
}

/** Labels that Prometheus adds to what it scrapes. */
const scraped = new Set(['job', 'instance'])

/** What a query names: each metric with the matchers of its labels, and labels to group by. */
function selectorsOf(
  query: string,
): { metric: string; matchers: [label: string, operator: string, value: string][] }[] {
  const groups = [...query.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels = '']) => labels.split(/, */))
  return [...query.matchAll(/\b((?:mqway|nodejs|process)_\w+)(?:\{([^}]*)\})?/g)].map(
    ([, metric = '', inside = '']) => {
      const written = [...inside.matchAll(/(\w+)(=~|=)"([^"]*)"/g)].map(
        ([, label = '', operator = '', value = '']): [string, string, string] => [label, operator, value],
      )
      const grouped = groups.map((label): [string, string, string] => [label, '=~', '.+'])
      return { metric, matchers: [...written, ...grouped].filter(([label]) => !scraped.has(label)) }
    },
  )
}

/** The samples of the text format of Prometheus, each a metric with its labels. */
function samplesOf(text: string): { metric: string; labels: Record<string, string> }[] {
  return text.split('\n').flatMap(line => {
    const [, metric, inside = ''] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? []
    if (metric === undefined) return []
    const labels = [...inside.matchAll(/(\w+)="([^"]*)"/g)].map(([, label = '', value = '']) => [label, value])
    return [{ metric, labels: Object.fromEntries(labels) }]
  })
}

describeWith(['promtool'], 'the alerts and the dashboard of examples/monitoring', () => {
  it('ask for metrics and labels that a gateway has, with every value that they name', async () => {
    const mail = { from: 'mqway@example.org', sendmail: '/bin/true' }
    const webhook = { url: 'http://127.0.0.1:1/', secret: `whsec_${Buffer.alloc(32).toString('base64')}` }
    const gateway = await startTestGateway({
      notify: {
        mail,
        rules: [
          { topics: ['alarm'], to: ['ops@example.org'] },
          { topics: ['alarm'], webhook },
        ],
      },
    })
    onTestFinished(() => gateway.close())
    await handshake(`${gateway.urls.http.replace('http', 'ws')}/mqtt`)
    const samples = samplesOf(await (await fetch(`${gateway.urls.http}/metrics`)).text())
    const queries = [...alerts.map(({ expr }) => expr), ...dashboardQueries()]
    const selectors = queries.flatMap(selectorsOf)
    expect(selectors.length).toBeGreaterThan(queries.length / 2)
    const unknown = selectors.flatMap(({ metric, matchers }) => {
      const named = samples.filter(sample => sample.metric === metric)
      if (named.length === 0) return [metric]
      return matchers.flatMap(([label, operator, value]) => {
        const values = operator === '=~' && /^[\w|-]+$/.test(value) ? value.split('|') : [value]
        return values
          .filter(each => !named.some(({ labels }) => new RegExp(`^(?:${each})$`).test(labels[label] ?? '')))
          .map(each => `${metric}{${label}${operator}"${each}"}`)
      })
    })
    expect([...new Set(unknown)]).toEqual([])
  })

  it('are valid for Prometheus', async () => {
    await promtool('check', 'rules', rulesFile)
    const rules = dashboardQueries().map((expr, index) => ({ record: `query:${index}`, expr }))
    expect(rules.length).toBeGreaterThan(20)
    await promtool(
      'check',
      'rules',
      await temporary('queries.yml', stringify({ groups: [{ name: 'dashboard', rules }] })),
    )
  })

  it.each([
    ['MqwayDown', 'up{job="mqway"}', '1 1 0 0 0', '2m', '4m'],
    ['MqwayRestarts', 'process_start_time_seconds{job="mqway"}', '1 2 3 4', '2m', '3m'],
    ['MqwayBrokerUnreachable', 'mqway_push_connected', '1 0 0 0 0', '2m', '4m'],
    ['MqwayBrokerUnreachable', 'mqway_refusals_total{reason="broker-timeout"}', '0 5 5 5 5', '1m', '4m'],
    ['MqwayConnectionsTaken', 'mqway_refusals_total{reason="too-many-connections"}', '0 0 0 5', '2m', '3m'],
    ['MqwayRefusesLogins', 'mqway_refusals_total{reason="identity-refused"}', '0+120x12', '3m', '10m'],
    ['MqwayWebhookEventsLost', 'mqway_webhook_events_dropped_total{rule="orders"}', '0 0 0 7', '2m', '3m'],
    ['MqwayCertificateExpires', 'mqway_certificate_expiry_seconds', '604860+0x5', '0m', '2m'],
  ])('%s fires when %s is %s, and not before', async (alertname, series, values, quiet, fires) => {
    const count = (eval_time: string, value: number) => ({
      ...{ eval_time, expr: `count(ALERTS{alertname="${alertname}",alertstate="firing"}) or vector(0)` },
      exp_samples: [{ labels: '{}', value }],
    })
    const test = {
      interval: '1m',
      input_series: [{ series, values }],
      promql_expr_test: [count(quiet, 0), count(fires, 1)],
    }
    await promtool('test', 'rules', await temporary('test.yml', stringify({ rule_files: [rulesFile], tests: [test] })))
  })
})
