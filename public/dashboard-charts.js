/** Charts of the last 15 minutes, drawn by uPlot. Their current values stand above them as text; under the pointer, those of that moment. */

import { element } from './dom.js'

/** Samples of 15 minutes, one every 2 s. */
const MAX_SAMPLES = 450
/** Seconds that a chart shows at least. */
const LEAST_SECONDS = 120

const HEIGHT = 96

const powersOfTwo = Array.from({ length: 48 }, (_, exponent) => 2 ** exponent)

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {number} hue number of its colour
 *
 * @typedef {object} ChartOptions
 * @property {string} title
 * @property {Line[]} lines
 * @property {(value: number) => string} format
 * @property {string} [className]
 * @property {boolean} [isBytes] whether the scale is in powers of two
 * @property {number} least the top of the scale at least, so that noise is not drawn as mountains
 */

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/** @typedef {{ add(values: (number | null)[]): void }} Chart */

export class Charts {
  #place
  /** Times of the samples, in seconds since 1970. @type {number[]} */
  #times = []
  /** @type {DrawnChart[]} */
  #charts = []

  /** @param {HTMLElement} place */
  constructor(place) {
    this.#place = place
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const chart of this.#charts) chart.restyle()
    })
    new ResizeObserver(() => this.fit()).observe(place)
  }

  /** To be called when charts are shown or hidden. */
  fit() {
    for (const chart of this.#charts) chart.fit()
  }

  /** @param {ChartOptions} options */
  add(options) {
    const chart = new DrawnChart(options, this.#times)
    this.#place.append(chart.figure)
    this.#charts.push(chart)
    chart.restyle()
    return chart
  }

  /**
   * Adds one sample to all charts.
   *
   * @param {number} time in seconds since 1970
   * @param {(number | null)[][]} values of each line of each chart; null for a gap
   */
  sample(time, values) {
    this.#times.push(time)
    if (this.#times.length > MAX_SAMPLES) this.#times.shift()
    for (const [index, chart] of this.#charts.entries()) chart.sample(values[index] ?? [])
  }
}

class DrawnChart {
  figure
  #options
  #times
  /** @type {(number | null)[][]} */
  #values
  #canvas = element('div', 'chart-canvas')
  /** The value of each line. @type {HTMLElement[]} */
  #shown = []
  #moment = element('span', 'chart-moment')
  /** @type {UPlot | undefined} */
  #plot

  /**
   * @param {ChartOptions} options
   * @param {number[]} times
   */
  constructor(options, times) {
    this.#options = options
    this.#times = times
    this.#values = options.lines.map(() => [])
    const legend = options.lines.map(({ name, hue }) => {
      const value = element('b', '', '–')
      this.#shown.push(value)
      return element('span', `chart-line hue-${hue}`, element('i', 'chart-swatch'), `${name} `, value)
    })
    this.#canvas.setAttribute('aria-hidden', 'true')
    this.figure = element(
      'figure',
      `chart panel ${options.className ?? ''}`,
      element('figcaption', '', element('h2', '', options.title), this.#moment),
      element('p', 'chart-legend', ...legend),
      this.#canvas,
    )
  }

  /** @param {(number | null)[]} values */
  sample(values) {
    for (const [index, line] of this.#values.entries()) {
      line.push(values[index] ?? null)
      if (line.length > MAX_SAMPLES) line.shift()
    }
    this.#plot?.setData([this.#times, ...this.#values])
    if (this.#plot?.cursor.idx == null) this.#show(undefined)
  }

  fit() {
    const width = this.#canvas.clientWidth
    if (width > 0 && this.#plot && this.#plot.width !== width) this.#plot.setSize({ width, height: HEIGHT })
  }

  /** Draws it anew in the colours of the style sheet. */
  restyle() {
    this.#plot?.destroy()
    const styles = getComputedStyle(document.documentElement)
    const color = (/** @type {string} */ name) => styles.getPropertyValue(name).trim()
    const { lines, format, least, isBytes = false } = this.#options
    const axis = { stroke: color('--dim'), font: `11px ${color('--sans')}`, ticks: { show: false } }
    const grid = { stroke: color('--line'), width: 1 }
    this.#plot = new uPlot(
      {
        width: Math.max(160, this.#canvas.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        padding: [6, 4, 0, 0],
        cursor: {
          y: false,
          drag: { x: false, y: false, setScale: false },
          points: { size: 7 },
          sync: { key: 'dashboard' },
        },
        scales: {
          x: { range: (_plot, from, to) => [Math.min(from, to - LEAST_SECONDS), to] },
          y: { range: (_plot, _from, to) => [0, Math.max(least, (to ?? 0) * 1.1)] },
        },
        axes: [
          { ...axis, grid: { show: false }, size: 20, space: 90, values: clocks },
          {
            ...axis,
            grid,
            size: 58,
            space: 32,
            values: (_plot, splits) => splits.map(value => format(value)),
            ...(isBytes && { incrs: powersOfTwo }),
          },
        ],
        series: [
          {},
          ...lines.map(({ hue }, index) => {
            const stroke = color(`--hue-${hue}`)
            return { stroke, width: 1.75, points: { show: false }, ...(index === 0 && { fill: `${stroke}24` }) }
          }),
        ],
        hooks: { setCursor: [plot => this.#show(plot.cursor.idx ?? undefined)] },
      },
      [this.#times, ...this.#values],
      this.#canvas,
    )
    this.fit()
  }

  /**
   * Shows the values of one sample, or the newest.
   *
   * @param {number | undefined} index
   */
  #show(index) {
    const at = index ?? this.#times.length - 1
    const time = this.#times[at]
    this.#moment.textContent = index === undefined || time === undefined ? '' : clock.format(time * 1000)
    for (const [line, shown] of this.#shown.entries()) {
      const value = this.#values[line]?.[at]
      const text = value == null ? '–' : this.#options.format(value)
      if (shown.textContent !== text) shown.textContent = text
    }
  }
}

/**
 * @param {unknown} _plot
 * @param {number[]} splits
 */
function clocks(_plot, splits) {
  return splits.map(value => clock.format(value * 1000).slice(0, 5))
}
