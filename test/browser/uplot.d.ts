/** The part of uPlot that the dashboard uses, for the type check of `public/` (tsconfig.json in this folder). */
interface UPlot {
  readonly width: number
  readonly cursor: { readonly idx?: number | null }
  setData(data: (number | null)[][]): void
  setSize(size: { width: number; height: number }): void
  destroy(): void
}

interface UPlotOptions {
  width: number
  height: number
  legend: { show: boolean }
  padding: number[]
  cursor: object
  scales: Record<string, { range: (plot: UPlot, from: number, to: number) => [number, number] }>
  axes: { values: (plot: UPlot, splits: number[]) => string[]; [option: string]: unknown }[]
  series: object[]
  hooks: { setCursor: ((plot: UPlot) => void)[] }
}

declare const uPlot: new (options: UPlotOptions, data: (number | null)[][], place: HTMLElement) => UPlot
